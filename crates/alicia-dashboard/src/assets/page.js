// Replaces the live part of the page as the server sends it anew. Without this script the page is whole, only not live.
"use strict";
(() => {
  const stream = document.body.dataset.stream;
  const live = document.getElementById("live");
  const lost = document.getElementById("lost");
  const said = document.getElementById("said");
  if (!stream || !live) return;

  // How an element is found again after the part was replaced: by its id, or as the n-th link to the same place.
  const trace = (element) => {
    if (element.id) return { selector: `#${CSS.escape(element.id)}`, at: 0 };
    const href = element.getAttribute("href");
    if (!href) return null;
    const selector = `a[href="${CSS.escape(href)}"]`;
    return { selector, at: [...live.querySelectorAll(selector)].indexOf(element) };
  };
  const find = (trace) => trace && live.querySelectorAll(trace.selector)[trace.at];

  // What somebody reads, has opened or has focused must not move away under them.
  const keepPlace = (change) => {
    const places = [...live.querySelectorAll("[tabindex][id]")].map((region) => ({
      region: trace(region), left: region.scrollLeft, top: region.scrollTop,
      atEnd: region.scrollHeight - region.scrollTop - region.clientHeight < 40,
    }));
    const opened = [...live.querySelectorAll("details[open][id]")].map(trace);
    const focused = live.contains(document.activeElement) ? trace(document.activeElement) : null;
    change();
    for (const place of places) {
      const region = find(place.region);
      if (!region) continue;
      region.scrollLeft = place.left;
      const follows = region.getAttribute("role") === "log" && place.atEnd;
      region.scrollTop = follows ? region.scrollHeight : place.top;
    }
    for (const details of opened.map(find)) if (details) details.open = true;
    const again = find(focused);
    if (again) again.focus({ preventScroll: true });
  };

  // Said aloud only when it is something else: the part itself is replaced every second.
  const verdict = () => live.querySelector("[data-verdict]")?.textContent ?? "";
  let spoken = verdict();
  const speak = () => {
    const now = verdict();
    if (now === spoken) return;
    spoken = now;
    said.textContent = now;
  };

  const hasSelection = () => {
    const selection = window.getSelection();
    return selection && !selection.isCollapsed && live.contains(selection.anchorNode);
  };

  let waiting = null;
  const show = () => {
    if (waiting === null || hasSelection()) return;
    const html = waiting;
    waiting = null;
    keepPlace(() => { live.innerHTML = html; });
    speak();
  };

  const events = new EventSource(stream);
  events.addEventListener("main", (event) => {
    lost.hidden = true;
    waiting = event.data;
    show();
  });
  events.addEventListener("error", () => { lost.hidden = false; });
  events.addEventListener("open", () => { lost.hidden = true; });
  // What came while a text was selected is shown as soon as it is not.
  document.addEventListener("selectionchange", show);
  const output = live.querySelector("[role=log]");
  if (output) output.scrollTop = output.scrollHeight;
})();
