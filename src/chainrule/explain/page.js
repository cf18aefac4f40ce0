"use strict";
(() => {
  const root = document.documentElement;
  const moments = JSON.parse(document.getElementById("cr-moments").textContent);
  const narration = document.getElementById("cr-narration");
  const count = document.getElementById("cr-count");
  const opening = narration.innerHTML;
  let now = -1; // -1: everything is shown, nothing is chosen
  root.classList.add("cr-script");

  const show = () => {
    for (const one of document.querySelectorAll(".cr-graph [data-at]")) {
      const at = Number(one.dataset.at), back = Number(one.dataset.back ?? -1);
      one.classList.toggle("cr-later", now >= 0 && at > now);
      one.classList.toggle("cr-now", now >= 0 && (at === now || back === now));
    }
    const moment = moments[now];
    for (const row of document.querySelectorAll("tr[data-row]"))
      row.classList.toggle("cr-now", moment !== undefined && Number(row.dataset.row) === moment.step);
    count.textContent = moment ? `${now + 1} / ${moments.length}` : `${moments.length}`;
    if (!moment) {
      narration.innerHTML = opening;
      delete narration.dataset.phase;
      return;
    }
    narration.textContent = (moment.phase === "forward" ? "▶ " : "◀∂ ") + moment[root.lang === "ko" ? "ko" : "en"];
    narration.dataset.phase = moment.phase;
    const scroller = document.querySelector(".cr-graph")?.parentElement;
    const box = document.querySelector(`.cr-node[data-step="${moment.step}"] rect`);
    if (scroller && box) {
      const middle = Number(box.getAttribute("x")) + Number(box.getAttribute("width")) / 2;
      scroller.scrollLeft = middle - scroller.clientWidth / 2;
    }
  };
  const go = (to) => {
    now = Math.max(-1, Math.min(moments.length - 1, to));
    history.replaceState(null, "", now < 0 ? "#" : `#step=${now + 1}`);
    show();
  };
  const labels = () => {
    for (const one of document.querySelectorAll("[data-en][data-ko]")) {
      const text = one.dataset[root.lang === "ko" ? "ko" : "en"];
      one.setAttribute("aria-label", text);
      const title = one.querySelector("title");
      if (title) title.textContent = text;
    }
  };
  const press = (id, action) => document.getElementById(id).addEventListener("click", action);
  press("cr-first", () => go(0));
  press("cr-back", () => go(now - 1));
  press("cr-next", () => go(now + 1));
  press("cr-last", () => go(moments.length - 1));
  press("cr-theme", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  press("cr-colour", () => {
    if (root.dataset.colour) delete root.dataset.colour;
    else root.dataset.colour = "blind";
  });
  press("cr-language", () => {
    root.lang = root.lang === "ko" ? "en" : "ko";
    labels();
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const move = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: moments.length - 1, Escape: -1 }[event.key];
    if (move !== undefined) {
      event.preventDefault();
      go(move);
    } else if ((event.key === "Enter" || event.key === " ") && event.target.closest?.(".cr-node")) {
      event.preventDefault();
      go(Number(event.target.closest(".cr-node").dataset.at));
    }
  });
  for (const node of document.querySelectorAll(".cr-node"))
    node.addEventListener("click", () => go(Number(node.dataset.at)));
  labels();
  const wanted = /^#step=(\d+)$/.exec(location.hash);
  if (wanted) go(Number(wanted[1]) - 1);
  else show();
})();
