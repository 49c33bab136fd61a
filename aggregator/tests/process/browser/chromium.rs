//! Headless Chromium, driven by WebDriver, and what is checked on every page: that it fits, that everybody can read it, that nothing
//! is asked for elsewhere.
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use mcad_testkit::explained::root;
use serde_json::{Value, json};
use thirtyfour::{By, CapabilitiesHelper as _, ChromiumLikeCapabilities as _, DesiredCapabilities, WebDriver};

use crate::support::wait::PATIENCE;

/// A browser and its driver; both end with the test, however that ends.
pub(crate) struct Browser {
    pub(crate) driver: WebDriver,
    chromedriver: Child,
    port: u16,
    /// Where pages were opened: nothing may be asked for elsewhere.
    origins: Mutex<BTreeSet<String>>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.chromedriver.kill();
        let _ = self.chromedriver.wait();
    }
}

impl Browser {
    /// Nothing where there is no browser.
    pub(crate) async fn start() -> Option<Self> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut chromedriver) = command.spawn() else {
            eprintln!("SKIPPED: no chromedriver on the path (Debian's chromium and chromium-driver)");
            return None;
        };
        let lines = BufReader::new(chromedriver.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
        let port: u16 = port.unwrap();
        let mut capabilities = DesiredCapabilities::chrome();
        // Root may not have the sandbox; a container's /dev/shm is too small.
        for arg in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"] {
            capabilities.add_arg(arg).unwrap();
        }
        // The browser's own network log, of every page.
        capabilities.set("goog:loggingPrefs", json!({"performance": "ALL", "browser": "ALL"})).unwrap();
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), capabilities).await.unwrap();
        Some(Self { driver, chromedriver, port, origins: Mutex::default() })
    }

    /// Whatever the test was about: by the browser's own log no page has asked for anything that is not where it came from.
    pub(crate) async fn end(self) {
        let requested = self.requested();
        let origins = self.origins.lock().unwrap().clone();
        let is_ours = |url: &String| url.starts_with("data:") || origins.iter().any(|origin| url.starts_with(origin));
        assert!(requested.len() >= 3, "neither a page nor its style nor its script was asked for: {requested:?}");
        let strangers: Vec<_> = requested.iter().filter(|url| !is_ours(url)).collect();
        assert!(strangers.is_empty(), "not from {origins:?}: {strangers:?}");
        self.driver.clone().quit().await.unwrap();
    }

    /// The URLs of all requests since the last look, sent or not, of pages, frames, workers and sockets.
    pub(crate) fn requested(&self) -> Vec<String> {
        let entries = self.log("performance").into_iter();
        let events = entries.map(|entry| serde_json::from_str::<Value>(entry["message"].as_str().unwrap()).unwrap());
        let url = |event: Value| {
            let Value::String(method) = &event["message"]["method"] else { return None };
            let parameters = &event["message"]["params"];
            let url = match method.as_str() {
                "Network.requestWillBeSent" => &parameters["request"]["url"],
                "Network.webSocketCreated" | "Network.webTransportCreated" => &parameters["url"],
                _ => return None,
            };
            Some(url.as_str().unwrap().to_owned())
        };
        events.filter_map(url).collect()
    }

    /// The entries of one of the browser's logs since the last look.
    fn log(&self, name: &str) -> Vec<Value> {
        let body = json!({"type": name}).to_string();
        let request = format!(
            "POST /session/{}/se/log HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.driver.session_id(),
            body.len()
        );
        let answer: Value = serde_json::from_slice(&body_of(self.port, &request)).unwrap();
        answer["value"].as_array().unwrap().clone()
    }

    /// Opens pages in both themes, on a wide and on a narrow screen, and checks all that every page must be.
    pub(crate) async fn check_everywhere(&self, axe: Option<&str>, url: &str, paths: &[&str]) {
        self.log("browser");
        for theme in ["light", "dark"] {
            self.theme(theme).await;
            for width in [1280, 360] {
                self.size(width, 900).await;
                for path in paths {
                    let what = format!("{path}, {theme}, {width} px");
                    self.open(&format!("{url}{path}")).await;
                    self.check_fits(width.into(), &what).await;
                    self.check_age_stays(&what).await;
                    if let Some(axe) = axe {
                        self.check_accessible(axe, &what).await;
                    }
                    self.check_console(&format!("{url}{path}"), &what);
                }
            }
        }
    }

    /// No error was logged since the last look, neither by the script nor by the browser, such as that something was refused or not
    /// found. That a page itself is one that says that there is no such thing is no error.
    fn check_console(&self, url: &str, what: &str) {
        let is_itself = |message: &str| message.starts_with(&format!("{url} - ")) && message.contains("status of 404");
        let errors: Vec<_> = self
            .log("browser")
            .into_iter()
            .filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")))
            .filter(|entry| !entry["message"].as_str().is_some_and(is_itself))
            .collect();
        assert!(errors.is_empty(), "{what}: {errors:#?}");
    }

    pub(crate) async fn ask(&self, script: &str) -> Value {
        self.driver.execute(script, Vec::new()).await.unwrap().json().clone()
    }

    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.driver.cdp().send_raw(command, parameters).await.unwrap()
    }

    pub(crate) async fn size(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    pub(crate) async fn theme(&self, theme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    pub(crate) async fn open(&self, url: &str) {
        // Up to the slash behind the port.
        let origin = url.match_indices('/').nth(2).map_or_else(|| format!("{url}/"), |(at, _)| url[..=at].to_owned());
        self.origins.lock().unwrap().insert(origin);
        self.driver.goto(url.to_owned()).await.unwrap();
    }

    pub(crate) async fn text(&self) -> String {
        self.ask("return document.body.innerText").await.as_str().unwrap().to_owned()
    }

    pub(crate) async fn check_text(&self, expected: &str) {
        let text = self.text().await;
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }

    /// Types text into the first element of a selector, key by key.
    pub(crate) async fn type_in(&self, selector: &str, text: &str) {
        self.driver.find(By::Css(selector)).await.unwrap().send_keys(text).await.unwrap();
    }

    /// Waits until an expression is true on the page: for a state, never for a time.
    pub(crate) async fn until(&self, expression: &str) {
        let holds = async {
            while self.ask(&format!("return {expression}")).await != json!(true) {
                tokio::task::yield_now().await;
            }
        };
        let held = tokio::time::timeout(PATIENCE, holds).await;
        assert!(held.is_ok(), "{expression} does not become true:\n{}", self.text().await);
    }

    pub(crate) async fn check_fits(&self, width: u64, what: &str) {
        let wide = self.ask("return document.documentElement.scrollWidth").await;
        let beyond = "return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > arguments[0]) \
                      .map(e => e.tagName + '.' + e.getAttribute('class') + ' ' + e.textContent.slice(0, 40)).slice(0, 20)"
            .replace("arguments[0]", &width.to_string());
        assert!(
            wide.as_u64().unwrap() <= width,
            "{what} is {wide} wide on a screen of {width}, for {}",
            self.ask(&beyond).await
        );
    }

    /// The age of the snapshot is in view at the end of the page as well.
    pub(crate) async fn check_age_stays(&self, what: &str) {
        let script = "window.scrollTo(0, document.documentElement.scrollHeight);
             const age = document.getElementById('age');
             if (!age) return null;
             const place = age.getBoundingClientRect();
             const seen = age.contains(document.elementFromPoint(place.left + 2, place.top + place.height / 2));
             window.scrollTo(0, 0);
             return seen";
        let seen = self.ask(script).await;
        assert!(
            seen == json!(true) || seen.is_null() && what.starts_with("/docs"),
            "{what}: the age is out of sight: {seen}"
        );
    }

    /// What axe-core finds against WCAG 2.2, levels A and AA; and headings that skip a level, which readers of headings stumble over.
    pub(crate) async fn check_accessible(&self, axe: &str, what: &str) {
        let tags = "['wcag2a','wcag2aa','wcag21a','wcag21aa','wcag22aa']";
        self.ask(axe).await;
        let script = format!(
            "const done = arguments[arguments.length - 1];
             axe.run(document, {{runOnly: {{type: 'tag', values: {tags}}}}})
                .then(r => done([r.passes.length, r.violations.map(v => [v.id, v.help, v.nodes.slice(0, 3).map(n => n.html + ' ' + n.failureSummary)])]))
                .catch(e => done([0, [String(e)]]));"
        );
        let found = self.driver.execute_async(script, Vec::new()).await.unwrap().json().clone();
        assert!(found[0].as_u64().unwrap() > 10, "{what}: axe looked at next to nothing: {found}");
        assert_eq!(found[1], json!([]), "{what}: {found:#}");
        let levels =
            "return [...document.querySelectorAll('h1, h2, h3, h4')].map(heading => Number(heading.tagName[1]))";
        let levels: Vec<u64> = serde_json::from_value(self.ask(levels).await).unwrap();
        let skips = levels.windows(2).any(|pair| pair[1] > pair[0] + 1);
        assert!(levels.first() == Some(&1) && !skips, "{what}: headings of the levels {levels:?}");
    }
}

/// The body of chromedriver's answer, by its length: it keeps connections that were asked to end.
fn body_of(port: u16, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = BufReader::new(stream);
    let mut length = None;
    loop {
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        length = length.or_else(|| line.strip_prefix("content-length:")?.trim().parse().ok());
    }
    let mut body = vec![0; length.unwrap()];
    answer.read_exact(&mut body).unwrap();
    body
}

/// axe-core as `cargo xtask test` brings it.
pub(crate) fn axe() -> Option<String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("../target"), PathBuf::from);
    let path = target.join("axe/node_modules/axe-core/axe.min.js");
    let read = std::fs::read_to_string(&path);
    if read.is_err() {
        eprintln!("SKIPPED: no axe-core in target/axe (cargo xtask test brings it, by npm)");
    }
    read.ok()
}
