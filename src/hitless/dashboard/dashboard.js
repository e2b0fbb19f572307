"use strict";
// Follows the page by server-sent events. Existing elements are changed in place, so that focus, open forms and typed
// text stay.
(() => {
  const live = document.getElementById("live"), link = document.getElementById("link");
  let source = null;

  function same(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");
  }

  function change(now, next) {
    if (now.nodeType !== Node.ELEMENT_NODE) {
      if (now.nodeValue !== next.nodeValue) now.nodeValue = next.nodeValue;
      return;
    }
    for (const { name } of [...now.attributes])
      if (!next.hasAttribute(name) && name !== "open") now.removeAttribute(name);
    for (const { name, value } of next.attributes)
      if (now.getAttribute(name) !== value) now.setAttribute(name, value);
    children(now, next);
  }

  function children(now, next) {
    const wanted = [...next.childNodes];
    wanted.forEach((one, index) => {
      const here = now.childNodes[index];
      if (!here) now.appendChild(one);
      else if (same(here, one)) change(here, one);
      else {
        const later = one.id && [...now.childNodes].slice(index).find((each) => each.id === one.id);
        if (later) {  // it is not moved, because a moved element loses its focus
          while (now.childNodes[index] !== later) now.childNodes[index].remove();
          change(later, one);
        } else now.insertBefore(one, here);
      }
    });
    while (now.childNodes.length > wanted.length) now.lastChild.remove();
  }

  function say(text, kind) {
    link.textContent = text;
    link.className = "link " + kind;
  }

  function follow() {
    if (source || document.hidden) return;
    source = new EventSource(location.href);
    source.onopen = () => say("live", "on");
    source.onmessage = (event) => {
      const next = document.createElement("template");
      next.innerHTML = JSON.parse(event.data);
      children(live, next.content);
    };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) say("ended: run hitless dashboard again", "off");
      else say("reconnecting", "off");
    };
  }

  // A browser opens six connections to a host; hidden pages give theirs back.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return follow();
    if (source) source.close();
    source = null;
    say("paused", "");
  });
  document.addEventListener("toggle", (event) => {
    if (!event.target.matches(".ask") || !event.target.open) return;
    for (const other of document.querySelectorAll(".ask[open]")) if (other !== event.target) other.open = false;
    const first = event.target.querySelector("input:not([type=hidden]), select, button");
    if (first) first.focus();
  }, true);
  document.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && document.querySelector(".ask[open]");
    if (open) { open.open = false; open.querySelector("summary").focus(); }
  });
  document.addEventListener("submit", (event) => {
    if (event.target.method === "post") for (const one of event.target.querySelectorAll("button")) one.disabled = true;
  });
  for (const plot of document.querySelectorAll(".latest")) plot.scrollLeft = plot.scrollWidth;
  const here = document.querySelector("nav [aria-current]");
  if (here) here.parentElement.scrollLeft = here.offsetLeft - 100;
  follow();
})();
