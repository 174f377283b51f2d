// Updates the page from server-sent events, and follows links and searches without a reload.
// Without this script every link and the form work as well.

const SILENT_MS = 40_000; // more than twice the longest time between two events
const LATE_MS = 3_000; // the time that the server may take to read and draw a view
const AGAIN_MS = 10_000;
const TYPING_MS = 200;

const link = document.getElementById("link");
let stream = null;
let asked = null;
let heardAt = 0; // the last event, or the start of the stream
let currentAt = 0; // the last event that said that the view is current
let dueMs = 0; // the time from that event to the next one, as the server said
let again = 0;

function say(state, text) {
  if (link.dataset.state === state) return;
  link.dataset.state = state;
  link.textContent = text;
}

// Keeps the age of what is shown outside of the status, which a screen reader would read each second.
function showAge() {
  const seconds = Math.round((Date.now() - currentAt) / 1000);
  document.getElementById("age").textContent = currentAt ? `data ${seconds} s old` : "";
}

function heard(event) {
  heardAt = currentAt = Date.now();
  dueMs = 1000 * Number(event.data);
  say("live", "live");
  showAge();
}

function lost() {
  say("lost", "connection lost, reconnecting");
}

function listen() {
  clearTimeout(again);
  stream?.close();
  stream = null;
  if (document.hidden) return;
  const opened = (stream = new EventSource("events" + location.search));
  heardAt = Date.now();
  stream.addEventListener("view", (event) => {
    if (opened !== stream) return;
    show(parse(JSON.parse(event.data)));
  });
  stream.addEventListener("beat", heard);
  stream.addEventListener("error", () => {
    if (opened !== stream) return;
    lost();
    if (opened.readyState === EventSource.CLOSED) again = setTimeout(listen, AGAIN_MS);
  });
}

setInterval(() => {
  showAge();
  if (!stream) return;
  if (Date.now() - heardAt > SILENT_MS) {
    lost();
    listen();
  } else if (link.dataset.state === "live" && Date.now() - currentAt > dueMs + LATE_MS) {
    say("late", "not live: no update");
  }
}, 1_000);

function parse(html) {
  return new DOMParser().parseFromString(html, "text/html");
}

function show(wanted) {
  const focused = document.activeElement;
  const main = wanted.querySelector("main");
  document.title = main.dataset.title; // a failover changes it
  morph(document.querySelector("main"), main);
  if (focused === document.activeElement) return;
  if (focused.isConnected) focused.focus({ preventScroll: true });
  else document.getElementById("sessions").focus({ preventScroll: true });
}

// Makes `have` equal to `want` and keeps every node that can stay, so that focus, selection and
// scroll position survive an update. Nodes with a data-key are moved instead of rewritten.
function morph(have, want) {
  if (have.isEqualNode(want)) return;
  if (have.nodeType !== Node.ELEMENT_NODE) {
    have.nodeValue = want.nodeValue;
    return;
  }
  for (const { name } of [...have.attributes]) {
    if (!want.hasAttribute(name)) have.removeAttribute(name);
  }
  for (const { name, value } of want.attributes) {
    if (have.getAttribute(name) !== value) have.setAttribute(name, value);
  }
  if (have.localName === "input" && have !== document.activeElement) {
    have.value = want.getAttribute("value") ?? "";
  }
  let place = have.firstChild;
  for (const child of [...want.childNodes]) {
    const match = twin(child, place, have);
    if (!match) {
      have.insertBefore(child, place);
      continue;
    }
    if (match === place) place = place.nextSibling;
    else have.insertBefore(match, place);
    morph(match, child);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function twin(child, place, parent) {
  const key = child.dataset?.key;
  if (key !== undefined) {
    return [...parent.children].find((node) => node.dataset.key === key);
  }
  const alike = place && place.nodeType === child.nodeType && place.nodeName === child.nodeName;
  return alike && place.dataset?.key === undefined ? place : null;
}

async function go(url, { keep = "push" } = {}) {
  asked?.abort();
  const mine = (asked = new AbortController());
  let html;
  try {
    const answer = await fetch(url, { signal: mine.signal });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    html = await answer.text();
  } catch {
    if (mine.signal.aborted) return;
    lost(); // what was read stays; the stream brings the view when the server is back
  }
  if (mine.signal.aborted) return;
  if (keep === "push") history.pushState(null, "", url);
  if (keep === "replace") history.replaceState(null, "", url);
  if (html !== undefined) show(parse(html));
  listen();
}

document.addEventListener("click", (event) => {
  const anchor = event.target.closest("main a[href]");
  const plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
  if (!anchor || !plain || anchor.href.split("?")[0] !== location.href.split(/[?#]/)[0]) return;
  event.preventDefault();
  go(anchor.href);
});

function search(form, keep) {
  const said = [...new FormData(form)].filter(([, value]) => value !== "");
  go(`${location.pathname}?${new URLSearchParams(said)}`, { keep });
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  search(event.target, "push");
});

let typing = 0;
document.addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => search(event.target.form, "replace"), TYPING_MS);
});

window.addEventListener("popstate", () => go(location.href, { keep: "as it is" }));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) say("off", "paused while hidden");
  listen();
});

listen();
