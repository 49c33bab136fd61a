// Without this script the page shows the same. With it, updates from the server replace what is shown, and the search and the
// filters of nodes are applied while somebody types.
"use strict";
(() => {
  const slow = 15; // seconds without a message from the server before the page says so: the server sends one every five
  const pause = 200; // milliseconds without a key before a search is sent
  let heard = Date.now();
  let made = Date.now();
  const element = (id) => document.getElementById(id);

  const note = () => {
    const shown = element("age-s");
    if (shown) made = Date.now() - Number(shown.dataset.age) * 1000;
  };

  const renew = (html) => {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const focused = document.activeElement;
    const key = focused && focused.closest("[data-live]") ? focused.getAttribute("href") : null;
    const within = key === null ? null : focused.closest("[data-live]").id;
    for (const old of document.querySelectorAll("[data-live][id]")) {
      // A part that is not in the update is empty now: what it showed is no longer true.
      const now = fresh.getElementById(old.id);
      const html = now ? now.innerHTML : "";
      // What did not change is left alone: screen readers do not read it again, and no selection is lost.
      if (old.innerHTML !== html) old.innerHTML = html;
    }
    if (within && !document.contains(focused)) {
      const again = [...element(within).querySelectorAll("a")].find((a) => a.getAttribute("href") === key);
      if (again) again.focus({ preventScroll: true });
    }
    note();
    tick();
  };

  const tick = () => {
    const shown = element("age-s");
    if (!shown) return;
    const age = Math.max(0, Math.round((Date.now() - made) / 1000));
    shown.textContent = String(age);
    const silent = (Date.now() - heard) / 1000 > slow;
    element("age").classList.toggle("old", silent);
    const connection = element("connection");
    connection.hidden = !silent;
    connection.textContent = silent ? "; the aggregator does not answer" : "";
  };

  note();
  if (location.pathname.startsWith("/docs/")) return;
  let source = null;
  let again = 0;
  const listen = () => {
    clearTimeout(again);
    if (source) source.close();
    const stream = source = new EventSource("/events" + location.pathname + location.search);
    stream.addEventListener("page", (event) => { heard = Date.now(); renew(event.data); });
    stream.addEventListener("same", (event) => { heard = Date.now(); made = Date.now() - Number(event.data) * 1000; tick(); });
    // Closed for good if the server has as many streams as it serves. The page tries again later, and shows its age until then.
    stream.addEventListener("error", () => {
      if (stream.readyState === EventSource.CLOSED) again = setTimeout(listen, 10000 + Math.random() * 10000);
    });
  };
  listen();
  setInterval(tick, 1000);

  const form = document.querySelector("form.filter");
  if (!form) return;
  let loaded = location.search; // the query of what is shown
  let sent = null; // the request that has no answer yet
  let timer = 0;
  let typing = false; // while somebody types, the address changes without new entries in the history
  const fields = () => [...form.elements].filter((field) => field.name);
  const usual = (field) => (field.tagName === "SELECT" ? field.options[0].value : "");

  const load = async () => {
    clearTimeout(timer);
    if (sent) sent.abort();
    const mine = sent = new AbortController();
    source.close(); // it would still send what was selected before
    try {
      const query = location.search;
      const answer = await fetch("/" + query, { signal: mine.signal });
      if (!answer.ok) throw new Error(String(answer.status));
      const html = await answer.text();
      loaded = query;
      heard = Date.now();
      renew(html);
    } catch (error) {
      if (mine === sent) element("matches").textContent = "The aggregator did not answer the search. Press Enter to try again.";
    }
    if (mine === sent) {
      sent = null;
      listen();
    }
  };

  const apply = () => {
    const chosen = new URLSearchParams();
    for (const field of fields()) {
      const value = field.value.trim();
      if (value !== usual(field)) chosen.append(field.name, value);
    }
    const query = chosen.toString() ? "?" + chosen : "";
    if (query !== location.search) {
      history[typing ? "replaceState" : "pushState"](null, "", "/" + query + "#nodes");
      typing = true;
    } else if (query === loaded) return;
    load();
  };

  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(apply, pause); });
  form.addEventListener("change", () => { typing = false; });
  form.addEventListener("submit", (event) => { event.preventDefault(); apply(); typing = false; });
  // Back and forward. Links within the page come here, too, and change no query.
  addEventListener("popstate", () => {
    clearTimeout(timer);
    if (location.search === loaded && !sent) return;
    const chosen = new URLSearchParams(location.search);
    for (const field of fields()) {
      const value = chosen.get(field.name) ?? (field.name === "search" ? chosen.get("name") : null) ?? usual(field);
      field.value = value;
      if (field.selectedIndex === -1) field.add(new Option(value, value, false, true));
    }
    typing = false;
    load();
  });
})();
