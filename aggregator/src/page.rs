//! The page at `/`, for people: one plain table of the nodes, from the same snapshot as `/metrics`. Owns HTML and how
//! figures are written for eyes; pure. No script, no external asset.
use std::fmt::Write as _;

use crate::clock::Now;
use crate::merge::{AgentHealth, Figures, GpuSource, Snapshot, Used};
use crate::resource::Resource;

const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{margin:2rem auto;max-width:70rem;padding:0 1rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .8rem;border-bottom:1px solid color-mix(in srgb,currentColor 20%,transparent)}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
.down{font-weight:bold;color:light-dark(#b00020,#ff8a80)}";

/// Renders the page of a snapshot that is looked at `now`.
pub fn render(snapshot: &Snapshot, now: Now) -> String {
    let mut html = String::new();
    // Writing to a String has no error.
    let _ = write_page(&mut html, snapshot, now);
    html
}

fn write_page(html: &mut String, snapshot: &Snapshot, now: Now) -> std::fmt::Result {
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>mcad-metrics</title>\
         <style>{STYLE}</style></head>\n<body><h1>mcad-metrics</h1>\n"
    )?;
    let up = snapshot.nodes.iter().filter(|node| node.agent.health == AgentHealth::Up).count();
    writeln!(
        html,
        "<p>{} of {} agents report. Snapshot {:.1} s old. <a href=\"/metrics\">/metrics</a></p>",
        up,
        snapshot.nodes.len(),
        now.since(snapshot.made).as_secs_f64()
    )?;
    html.push_str(
        "<table><thead><tr><th>Node</th><th>Agent</th><th>Resource</th><th class=\"n\">Installed</th>\
         <th class=\"n\">Healthy</th><th class=\"n\">Used</th></tr></thead><tbody>\n",
    );
    for (resource, all) in &snapshot.cluster {
        write_row(html, "all", "", Some((resource, &all.sums)))?;
    }
    for node in &snapshot.nodes {
        let name = escape(node.name.as_str());
        let age_s = node.agent.report_age.map(|age| age.as_secs());
        let mut agent = match (node.agent.health, age_s) {
            (AgentHealth::Up, Some(age_s)) => format!("up, {age_s} s ago"),
            (AgentHealth::Up, None) => "up".to_owned(),
            (AgentHealth::Down, Some(age_s)) => format!("<span class=\"down\">down for {age_s} s</span>"),
            (AgentHealth::Down, None) => "<span class=\"down\">never reported</span>".to_owned(),
        };
        if node.gpu_source == Some(GpuSource::Fake) {
            agent.push_str(", <span class=\"down\">FAKE GPUs</span>");
        }
        if node.figures.is_empty() {
            write_row(html, &name, &agent, None)?;
        }
        for (resource, figures) in &node.figures {
            write_row(html, &name, &agent, Some((resource, figures)))?;
        }
    }
    html.push_str("</tbody></table></body></html>\n");
    Ok(())
}

fn write_row(html: &mut String, name: &str, agent: &str, row: Option<(&Resource, &Figures)>) -> std::fmt::Result {
    let cells = row.map(|(resource, figures)| {
        let Used { appwrapper, other, system } = figures.used;
        let used = [appwrapper, other, system].into_iter().flatten().reduce(u64::saturating_add);
        [
            escape(resource.name()),
            amount(resource, figures.installed),
            amount(resource, figures.healthy),
            use_of(resource, used),
        ]
    });
    let [resource, installed, healthy, used] = cells.unwrap_or_else(|| [UNKNOWN; 4].map(str::to_owned));
    writeln!(
        html,
        "<tr><td>{name}</td><td>{agent}</td><td>{resource}</td><td class=\"n\">{installed}</td>\
         <td class=\"n\">{healthy}</td><td class=\"n\">{used}</td></tr>"
    )
}

const UNKNOWN: &str = "–";

fn amount(resource: &Resource, amount: Option<u64>) -> String {
    let Some(amount) = amount else { return UNKNOWN.to_owned() };
    match resource {
        Resource::Cpu => format!("{} cores", amount as f64 / 1e3),
        Resource::Memory => gib(amount),
        Resource::Gpu | Resource::Extended(_) => amount.to_string(),
    }
}

fn use_of(resource: &Resource, used: Option<u64>) -> String {
    let Some(used) = used else { return UNKNOWN.to_owned() };
    match resource {
        Resource::Cpu => format!("{:.2} cores", used as f64 / 1e9),
        Resource::Memory => gib(used),
        Resource::Gpu | Resource::Extended(_) => format!("{:.2}", used as f64 / 1e9),
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
