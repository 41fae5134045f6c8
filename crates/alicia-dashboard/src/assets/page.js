// Replaces the live part of the page as the server sends it anew. Without this script the page is whole, only not live.
"use strict";
(() => {
  const stream = document.body.dataset.stream;
  const live = document.getElementById("live");
  const lost = document.getElementById("lost");
  if (!stream || !live) return;

  // What somebody reads or has focused must not move away under them.
  const keepPlace = (change) => {
    const output = live.querySelector(".output");
    const atEnd = !output || output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    const place = output ? output.scrollTop : 0;
    const focused = live.contains(document.activeElement) ? document.activeElement : null;
    const href = focused && focused.getAttribute("href");
    change();
    const now = live.querySelector(".output");
    if (now) now.scrollTop = atEnd ? now.scrollHeight : place;
    if (href) {
      const again = live.querySelector(`a[href="${CSS.escape(href)}"]`);
      if (again) again.focus({ preventScroll: true });
    }
  };

  const hasSelection = () => {
    const selection = window.getSelection();
    return selection && !selection.isCollapsed && live.contains(selection.anchorNode);
  };

  const events = new EventSource(stream);
  events.addEventListener("main", (event) => {
    lost.hidden = true;
    if (hasSelection()) return;
    keepPlace(() => { live.innerHTML = event.data; });
  });
  events.addEventListener("error", () => { lost.hidden = false; });
  events.addEventListener("open", () => { lost.hidden = true; });
  const output = live.querySelector(".output");
  if (output) output.scrollTop = output.scrollHeight;
})();
