// The page without this says the same; with it, what the server sends anew replaces what it shows.
"use strict";
(() => {
  const slow = 15; // seconds without a word from the server, after which that is said: it speaks once in ten
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
    for (const now of fresh.querySelectorAll("[data-live][id]")) {
      const old = element(now.id);
      // What did not change is left alone: nothing is read out, and no selection is lost.
      if (old && old.innerHTML !== now.innerHTML) old.innerHTML = now.innerHTML;
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
    connection.textContent = silent ? ", and the aggregator does not answer" : "";
  };

  note();
  if (location.pathname.startsWith("/docs/")) return;
  const listen = () => {
    const source = new EventSource("/events" + location.pathname + location.search);
    source.addEventListener("page", (event) => { heard = Date.now(); renew(event.data); });
    source.addEventListener("same", (event) => { heard = Date.now(); made = Date.now() - Number(event.data) * 1000; tick(); });
    // Closed for good where there are as many listeners as there may be: asked again later, and until then the age is seen to grow.
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 10000 + Math.random() * 10000);
    });
  };
  listen();
  setInterval(tick, 1000);
})();
