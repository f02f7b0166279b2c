// Keeps an open page true: listens for "something is new", asks for the same page again, and changes what differs.
// Without it every page is whole; it only saves the reader from reloading.

const root = document.documentElement;
const blind = document.getElementById("blind");
const SILENT_MS = 10_000; // the server speaks every 4 s
const AGAIN_MS = 15_000; // ages and loads are shown too, and change without a word
const RETRY_MS = 3_000;

let heardAt = performance.now(); // when the server last spoke
let knownAt = new Date(); // when what is shown was true
let asking = false;
let digest = root.dataset.digest ?? "";
let stream = null;

function lost(isLost) {
  if (!blind) return;
  if (isLost && blind.hidden) {
    const clock = knownAt.toLocaleTimeString(root.lang, { hour: "2-digit", minute: "2-digit" });
    blind.textContent = blind.dataset.lost.replace("{clock}", clock);
  }
  blind.hidden = !isLost;
}

async function ask() {
  if (asking) return;
  asking = true;
  try {
    const answer = await fetch(location.href, { headers: { "X-Live": "1" }, signal: AbortSignal.timeout(SILENT_MS) });
    if (answer.redirected) return location.reload(); // the session is over
    if (!answer.ok && answer.status !== 404) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    digest = page.documentElement.dataset.digest ?? digest;
    show(page);
    knownAt = new Date();
  } catch {
    // The bar says so once the server has been silent for long enough; the next look asks again.
  } finally {
    asking = false;
  }
}

function show(page) {
  const focused = document.activeElement;
  document.title = page.title;
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (fresh) morph(part, fresh);
  }
  // An element that was moved has lost the focus; nobody should be thrown back to the top for that.
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

// Make `old` equal to `fresh` with as little change as there is: what is the same stays, with its focus and its state.
function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !isTheirs(old, name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !isTheirs(old, name)) old.setAttribute(name, value);
  }
  const named = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    while (at?.id && !page_has(fresh, at.id)) at = removed(at);
    const match = child.id ? named.get(child.id) : at && !at.id && at.nodeName === child.nodeName ? at : null;
    if (!match || match.nodeName !== child.nodeName) {
      const added = document.importNode(child, true);
      old.insertBefore(added, at);
      if (added.id && old.dataset?.news !== undefined) added.classList.add("new");
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    morph(match, child);
  }
  while (at) at = removed(at);
}

function page_has(fresh, id) {
  return [...fresh.children].some((child) => child.id === id);
}

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

// What the reader has done to the page is theirs: an opened list stays open.
function isTheirs(element, name) {
  return name === "open" && element.nodeName === "DETAILS";
}

function listen() {
  stream = new EventSource("/ui/live");
  stream.addEventListener("look", (event) => {
    heard();
    if (event.data !== digest) ask();
  });
  stream.addEventListener("alive", heard);
}

function heard() {
  heardAt = performance.now();
  lost(false);
}

function watch() {
  const silent = performance.now() - heardAt;
  lost(silent > SILENT_MS);
  // A stream that was refused does not come back by itself.
  if (stream.readyState === EventSource.CLOSED) {
    stream.close();
    listen();
    ask();
  } else if (!document.hidden && silent < SILENT_MS && Date.now() - knownAt.getTime() > AGAIN_MS) {
    ask();
  }
}

// Pages tell times in UTC; whoever points at one sees it as their own clocks show it.
document.addEventListener("pointerover", ({ target }) => {
  const time = target.closest?.("time");
  if (time) time.title = new Date(time.dateTime).toLocaleString(root.lang, { dateStyle: "medium", timeStyle: "long" });
});

if (document.querySelector("[data-live]")) {
  listen();
  setInterval(watch, RETRY_MS);
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}
