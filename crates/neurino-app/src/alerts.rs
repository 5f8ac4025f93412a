//! What the person is told about without asking: watches every ten seconds, and remembers.

use std::sync::Arc;
use std::time::Duration;

use neurino_config::{AlertFiles, Dirs};
use neurino_control::{Alert, AlertFacts, AlertRules, Watch};
use neurino_protocol::alerts::{AlertsCommand, AlertsView};
use neurino_protocol::library::QueueState;
use neurino_protocol::{ErrorBody, ErrorCode};
use tracing::{info, warn};

use crate::mining::Phase;
use crate::{App, internal, lock, now_ms, told_with_causes};

/// The shortest rule counts minutes.
const EVERY: Duration = Duration::from_secs(10);

/// Rules, and what they saw.
pub(crate) struct Alerts {
    files: AlertFiles,
    rules: AlertRules,
    watch: Watch,
}

impl Alerts {
    pub(crate) fn open(dirs: &Dirs) -> Self {
        let files = AlertFiles::new(dirs);
        let (rules, watch) = (files.load_rules(), Watch::new(files.load_past()));
        Self { files, rules, watch }
    }

    /// What lasts now; also what notifications are made from.
    pub(crate) fn current(&self) -> Vec<Alert> {
        self.watch.current().cloned().collect()
    }

    /// Takes in what is the case; says whether something began or ended.
    fn observe(&mut self, facts: &AlertFacts) -> bool {
        let news = self.watch.observe(&self.rules, facts);
        if news {
            let told: Vec<Alert> =
                self.watch.past().iter().chain(self.watch.current()).cloned().collect();
            if let Err(error) = self.files.save_past(&told) {
                warn!("what was alerted is not saved: {}", told_with_causes(&error));
            }
            let now: Vec<_> = self.watch.current().map(|alert| alert.kind).collect();
            info!(?now, "alerts changed");
        }
        news
    }
}

impl App {
    /// Watches until the application ends.
    pub(crate) fn spawn_alerts(self: &Arc<Self>) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                app.watch_alerts().await;
                tokio::select! {
                    () = app.end.cancelled() => return,
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        });
    }

    async fn watch_alerts(self: &Arc<Self>) {
        let facts = self.alert_facts().await;
        if lock(&self.alerts).observe(&facts) {
            self.changed.notify_one();
        }
    }

    async fn alert_facts(self: &Arc<Self>) -> AlertFacts {
        let mining = matches!(lock(&self.mining).phase, Phase::Running(_));
        let used = self.used_gpus();
        // Cards that do nothing are not woken to be asked. Of several, the hottest counts.
        let card_c = if mining && !used.is_empty() {
            let sample = self.sample().await;
            let of_used =
                sample.gpus.iter().filter(|gpu| used.iter().any(|u| u.index == gpu.index));
            let degrees = of_used.filter_map(|gpu| gpu.temperature_c);
            degrees.map(|degrees| degrees.round() as i16).max()
        } else {
            None
        };
        let queue = self.queue_items();
        let running = queue.iter().find(|item| item.state == QueueState::Running);
        let download = running.map(|item| (item.model.to_string(), item.done_bytes));
        let points = self.receipts.totals(0).points();
        AlertFacts {
            now_ms: now_ms(),
            mining,
            card_c,
            points_micro: points.llama.0.saturating_add(points.waifu.0),
            download,
            free_bytes: self.store.free_bytes(),
            frozen_jobs: self.frozen_jobs(),
        }
    }

    /// Answers the window about alerts.
    pub(crate) async fn alerts(
        self: &Arc<Self>,
        command: AlertsCommand,
    ) -> Result<AlertsView, ErrorBody> {
        if let AlertsCommand::Set { rules } = command {
            let rules = rules.checked().map_err(|error| {
                ErrorBody::new(ErrorCode::InvalidRequest, error.to_string())
                    .with_hint("Nothing was changed.")
            })?;
            {
                let mut alerts = lock(&self.alerts);
                alerts.files.save_rules(&rules).map_err(|e| internal(told_with_causes(&e)))?;
                alerts.rules = rules;
            }
            self.watch_alerts().await;
        }
        let alerts = lock(&self.alerts);
        Ok(AlertsView {
            rules: alerts.rules.clone(),
            past: alerts.watch.past().iter().rev().cloned().collect(),
        })
    }
}
