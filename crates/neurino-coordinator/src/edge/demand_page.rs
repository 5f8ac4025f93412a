//! `GET /demand`: the network's demand as a page for persons, without a script. The figures are those of
//! `/v1/demand` and `/v1/epochs`.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use neurino_ledger::epoch::Demand;
use neurino_protocol::demand::{ModelDemand, NetworkDemand};
use serde::Deserialize;

use super::Edge;
use super::http::ApiError;

/// Weeks on the page.
const WEEKS: u32 = 26;

/// What of an epoch's summary is shown.
#[derive(Deserialize)]
struct Week {
    epoch: i64,
    start_ms: i64,
    pools: Pools,
}

#[derive(Deserialize)]
struct Pools {
    llama: Pool,
    waifu: Pool,
}

#[derive(Deserialize)]
struct Pool {
    demand: Demand,
}

/// `GET /demand`.
pub(crate) async fn show(State(coordinator): State<Edge>) -> Result<Response, ApiError> {
    let summaries = coordinator.store.epoch_summaries(i64::MAX, WEEKS).await;
    let summaries = summaries.map_err(|error| ApiError::plain(error.body()))?;
    let weeks: Vec<Week> =
        summaries.iter().filter_map(|summary| serde_json::from_str(summary).ok()).collect();
    let mut response = page(&coordinator.demand(), &weeks).into_response();
    let headers = response.headers_mut();
    // Nothing is fetched and nothing runs, whatever a model may be called.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "public, max-age=5"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#d9dce3;--dim:#5b6270;--ink:#16181d;--back:#fbfbfc}\
@media(prefers-color-scheme:dark){:root{--line:#2d313a;--dim:#9aa1ae;--ink:#e9ebef;--back:#14161a}}\
body{margin:0 auto;max-width:60rem;padding:2rem 1rem 4rem;font:15px/1.5 system-ui,sans-serif;\
color:var(--ink);background:var(--back)}\
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.05rem;margin:2.25rem 0 .25rem}\
p{margin:.25rem 0;color:var(--dim);max-width:44rem}\
div{overflow-x:auto}table{border-collapse:collapse;width:100%;margin-top:.75rem}\
th,td{padding:.4rem .75rem .4rem 0;text-align:right;border-bottom:1px solid var(--line);\
font-variant-numeric:tabular-nums;white-space:nowrap}\
th{font-weight:600;color:var(--dim);font-size:.85rem}\
th:first-child,td:first-child{text-align:left}a{color:inherit}";

fn page(now: &NetworkDemand, weeks: &[Week]) -> String {
    let network = escaped(&now.network);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>Demand on {network}</title><style>{STYLE}</style>\
         </head><body><h1>Demand on {network}</h1><p>What this network is asked for. For programs: \
         <a href=\"/v1/demand\">/v1/demand</a> and <a href=\"/v1/epochs\">/v1/epochs</a>.</p>"
    );
    hour(&mut html, &now.models);
    each_week(&mut html, weeks);
    if let Some(newest) = weeks.first() {
        models_of(&mut html, newest);
    }
    html.push_str("</body></html>\n");
    html
}

/// The last hour, busiest models first.
fn hour(html: &mut String, models: &[ModelDemand]) {
    html.push_str("<h2>The last hour</h2>");
    let minutes = models.iter().map(|model| model.minutes).max().unwrap_or(0);
    if minutes < 60 {
        let _ = write!(html, "<p>Counted for {minutes} min so far.</p>");
    }
    let mut seen: Vec<&ModelDemand> =
        models.iter().filter(|m| m.jobs + m.waiting + m.nodes > 0).collect();
    seen.sort_by(|a, b| (b.jobs, b.waiting, &a.model).cmp(&(a.jobs, a.waiting, &b.model)));
    if seen.is_empty() {
        html.push_str("<p>Nobody asked for anything, and no machine offers a model.</p>");
        return;
    }
    let heads = ["Model", "Jobs paid", "Waiting", "Machines", "Points per machine and hour"];
    let rows = seen.into_iter().map(|model| {
        let points = model.points_per_node_hour_micro;
        let points = points.map_or_else(|| "too little seen".to_owned(), |p| points_text(p.0));
        vec![
            escaped(model.model.as_str()),
            model.jobs.to_string(),
            model.waiting.to_string(),
            model.nodes.to_string(),
            points,
        ]
    });
    table(html, &heads, rows);
}

/// Raw demand and what of it counts, week by week.
fn each_week(html: &mut String, weeks: &[Week]) {
    html.push_str(
        "<h2>Week by week</h2><p>Raw is all that was earned. Organic is what counts for the dynamic pool: \
         work that somebody paid for who owns neither the machine nor the network. One beside the other \
         they show how much of the demand the network makes itself.</p>",
    );
    if weeks.is_empty() {
        html.push_str(
            "<p>No week was published yet; the first one is a week and an hour after its end.</p>",
        );
        return;
    }
    let heads = [
        "Week from",
        "Points",
        "Jobs",
        "Payers",
        "Raw",
        "Paid for",
        "Free",
        "Own",
        "Organic",
        "Share",
    ];
    let rows = weeks.iter().flat_map(|week| {
        let of = |name: &str, demand: &Demand| {
            vec![
                day(week.start_ms),
                name.to_owned(),
                demand.jobs.to_string(),
                demand.payers.to_string(),
                points_text(demand.raw_micro),
                points_text(demand.paid_micro),
                points_text(demand.free_micro),
                points_text(demand.own_micro),
                points_text(demand.organic_micro),
                share(demand.organic_micro, demand.raw_micro),
            ]
        };
        [of("Llama", &week.pools.llama.demand), of("Waifu", &week.pools.waifu.demand)]
    });
    table(html, &heads, rows);
}

/// The models of one week.
fn models_of(html: &mut String, week: &Week) {
    let _ = write!(
        html,
        "<h2>Models in the week of {} (epoch {})</h2>",
        day(week.start_ms),
        week.epoch
    );
    let kinds = [&week.pools.llama.demand, &week.pools.waifu.demand];
    let mut models: Vec<_> = kinds.iter().flat_map(|demand| &demand.models).collect();
    models.sort_by_key(|(name, demand)| (std::cmp::Reverse(demand.raw_micro), *name));
    if models.is_empty() {
        html.push_str("<p>Nothing was paid.</p>");
        return;
    }
    let rows = models.into_iter().map(|(name, demand)| {
        vec![
            escaped(name.as_str()),
            demand.jobs.to_string(),
            points_text(demand.raw_micro),
            points_text(demand.organic_micro),
            share(demand.organic_micro, demand.raw_micro),
        ]
    });
    table(html, &["Model", "Jobs", "Raw", "Organic", "Share"], rows);
}

/// Cells are HTML already.
fn table(html: &mut String, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    html.push_str("<div><table><thead><tr>");
    for head in heads {
        let _ = write!(html, "<th scope=\"col\">{head}</th>");
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<td>{cell}</td>");
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
}

/// Points with three digits behind the point.
fn points_text(micro: i64) -> String {
    let (sign, micro) = (if micro < 0 { "-" } else { "" }, micro.unsigned_abs());
    format!("{sign}{}.{:03}", micro / 1_000_000, micro % 1_000_000 / 1_000)
}

fn share(organic_micro: i64, raw_micro: i64) -> String {
    if raw_micro <= 0 {
        return "–".into();
    }
    format!("{:.1} %", organic_micro as f64 * 100.0 / raw_micro as f64)
}

/// A day of the universal calendar.
fn day(at_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms);
    at.map_or_else(|_| "at some time".into(), |at| at.strftime("%Y-%m-%d").to_string())
}

/// A text as it may stand in HTML.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use neurino_core::{MicroPoints, ModelId};

    use super::*;

    fn model(name: &str, jobs: u32, points: Option<i64>) -> ModelDemand {
        ModelDemand {
            model: ModelId::new(name).expect("valid"),
            minutes: 12,
            jobs,
            waiting: 0,
            nodes: 1,
            points_per_node_hour_micro: points.map(MicroPoints),
        }
    }

    #[test]
    fn a_page_shows_raw_and_organic_beside_each_other() {
        let mut demand = Demand { jobs: 3, payers: 2, ..Demand::default() };
        (demand.raw_micro, demand.organic_micro) = (4_000_000, 1_000_000);
        let of_model = neurino_ledger::epoch::ModelDemand {
            jobs: 3,
            raw_micro: 4_000_000,
            organic_micro: 1_000_000,
        };
        demand.models.insert(ModelId::new("loved").expect("valid"), of_model);
        let pools = Pools { llama: Pool { demand }, waifu: Pool { demand: Demand::default() } };
        let weeks = [Week { epoch: 2969, start_ms: 1_795_046_400_000, pools }];
        let models = vec![model("idle", 0, None), model("loved", 9, Some(30_500_000))];
        let html = page(&NetworkDemand { network: "<club & co>".into(), models }, &weeks);
        assert!(html.contains("Demand on &lt;club &amp; co&gt;"), "{html}");
        assert!(html.contains("<td>4.000</td><td>0.000</td>"), "{html}");
        assert!(html.contains("<td>1.000</td><td>25.0 %</td>"), "{html}");
        assert!(html.contains("<td>30.500</td>") && html.contains("too little seen"));
        let (loved, idle) = (html.find("<td>loved"), html.find("<td>idle"));
        assert!(loved < idle && loved.is_some(), "busiest first");
        assert!(!html.contains("<script") && html.contains("week of 2026-11-19"), "{html}");
        let empty = page(&NetworkDemand { network: "n".into(), models: Vec::new() }, &[]);
        assert!(empty.contains("Nobody asked") && empty.contains("No week"), "{empty}");
    }
}
