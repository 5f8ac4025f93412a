//! What the person is told about without asking.

use neurino_control::{AlertKind, AlertRules};
use neurino_protocol::alerts::AlertsCommand;
use neurino_protocol::app::{Command, Reply};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_stands_in_the_snapshot_and_is_remembered_when_it_is_over() {
    let world = World::answering("fine");
    let viewer = world.start().await;
    assert_eq!(viewer.snapshot().await.alerts, []);
    let set = |rules| Command::Alerts(AlertsCommand::Set { rules });
    let wrong = AlertRules { low_disk_gb: 0, ..AlertRules::default() };
    let refused = viewer.command(set(wrong)).await.unwrap_err();
    assert!(refused.message.contains("between 1 and 1000"), "{refused:?}");
    // The drive of this test has less than a terabyte free, or more than that: then nothing holds.
    let free_bytes = viewer.snapshot().await.library.free_bytes.unwrap();
    let rules = AlertRules { low_disk_gb: 1000, ..AlertRules::default() };
    viewer.command(set(rules)).await.unwrap();
    let alerts = viewer.snapshot().await.alerts;
    assert_eq!(alerts.len(), usize::from(free_bytes < 1_000_000_000_000));
    let quiet = AlertRules { low_disk: false, ..AlertRules::default() };
    let Ok(Reply::Alerts(view)) = viewer.command(set(quiet.clone())).await else {
        panic!("alerts")
    };
    assert_eq!(viewer.snapshot().await.alerts, []);
    assert_eq!((view.rules, view.past.len()), (quiet.clone(), alerts.len()));
    assert!(view.past.iter().all(|past| past.kind == AlertKind::LowDisk));
    viewer.app.shutdown().await;
    drop(viewer);
    let again = world.start().await;
    let look = Command::Alerts(AlertsCommand::Look);
    let Ok(Reply::Alerts(view)) = again.command(look).await else { panic!("alerts") };
    assert_eq!((view.rules, view.past.len()), (quiet, alerts.len()));
    again.app.shutdown().await;
}
