// Keys, dragging and a sentence for what is chosen. Without this file the page works with its form alone.
"use strict";

const form = document.getElementById("vote");
const undo = document.getElementById("undo");
const cards = () => [...form.querySelectorAll(".answer")];

// one press, one request; if a form is sent twice nevertheless, it is recorded once
for (const each of document.querySelectorAll("form[method=post]")) {
  each.addEventListener("submit", (event) => {
    if (each.dataset.sent) event.preventDefault();
    each.dataset.sent = "yes";
  });
}
// the browser's back button shows the form again, and it can be sent again
window.addEventListener("pageshow", () => document.querySelectorAll("form").forEach((each) => delete each.dataset.sent));

if (form) {
  document.body.classList.add("alive");
  const output = document.getElementById("chosen");

  const updateChoice = () => {
    const picked = form.querySelector("input[type=radio]:checked");
    const label = picked && picked.closest("label").querySelector("b");
    output.textContent = label ? label.textContent : "";
    if (form.dataset.kind === "compare") {
      const value = picked ? Number(picked.value) : 0;
      cards().forEach((card, k) => card.classList.toggle("chosen", k === 0 ? value < 0 : value > 0));
    }
  };
  form.addEventListener("change", updateChoice);
  window.addEventListener("pageshow", updateChoice);

  const radios = () => [...form.querySelectorAll("input[type=radio]")];
  const pick = (radio) => {
    if (!radio) return;
    radio.checked = true;
    radio.focus({ preventScroll: true });
    updateChoice();
  };
  const step = (by) => {
    const all = radios();
    const at = all.findIndex((radio) => radio.checked);
    pick(all[at < 0 ? Math.floor(all.length / 2) + (all.length % 2 ? by : Math.min(by, 0)) : Math.min(Math.max(at + by, 0), all.length - 1)]);
  };

  // ranking: the order on the page and the places are kept the same
  const renumber = () =>
    cards().forEach((card, k) => {
      card.querySelector("select").value = `${card.dataset.answer}-${k + 1}`;
    });
  // it is the other card that is taken out and put back: this one keeps the focus and the pointer
  const swap = (card, by) => {
    const all = cards();
    const other = all[all.indexOf(card) + by];
    if (other) card[by < 0 ? "after" : "before"](other);
  };
  const move = (card, by) => {
    swap(card, by);
    renumber();
    const numbers = { "{number}": Number(card.dataset.answer) + 1, "{place}": cards().indexOf(card) + 1 };
    output.textContent = form.dataset.moved.replace(/{\w+}/g, (name) => numbers[name]);
    card.scrollIntoView({ block: "nearest" });
  };
  if (form.dataset.kind === "rank") {
    const place = (card) => Number(card.querySelector("select").value.split("-")[1]);
    const sorted = cards().sort((a, b) => place(a) - place(b));
    sorted.forEach((card) => card.parentElement.append(card));
    for (const card of cards()) {
      card.querySelector(".moves").hidden = false;
      for (const button of card.querySelectorAll("[data-move]")) {
        button.addEventListener("click", () => move(card, Number(button.dataset.move)));
      }
      const grip = card.querySelector(".grip");
      grip.addEventListener("pointerdown", (down) => {
        down.preventDefault();
        grip.setPointerCapture(down.pointerId);
        card.classList.add("dragged");
        const drag = (event) => {
          if (event.clientY < 80 || event.clientY > innerHeight - 80) scrollBy(0, event.clientY < 80 ? -16 : 16);
          const all = cards();
          const at = all.indexOf(card);
          const middle = (other) => other.getBoundingClientRect().top + other.getBoundingClientRect().height / 2;
          if (at > 0 && event.clientY < middle(all[at - 1])) swap(card, -1);
          else if (at < all.length - 1 && event.clientY > middle(all[at + 1])) swap(card, 1);
        };
        const drop = () => {
          card.classList.remove("dragged");
          grip.removeEventListener("pointermove", drag);
          renumber();
        };
        grip.addEventListener("pointermove", drag);
        grip.addEventListener("lostpointercapture", drop, { once: true });
      });
    }
  }

  const keys = {
    s: () => form.querySelector("button[value=skip]")?.click(), // an example has neither this nor a note
    n: () => {
      const note = form.querySelector(".note");
      if (!note) return;
      note.open = true;
      note.querySelector("textarea").focus();
    },
    Enter: () => form.querySelector("button[value=vote]").click(),
  };
  const arrows = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const on = event.target;
    if (on.matches("textarea")) {
      if (event.key === "Escape") on.blur();
      return;
    }
    if (event.key === "Enter" && on.matches("button, a, summary, select")) return;
    const kind = form.dataset.kind;
    const digit = /^[0-9]$/.test(event.key) ? Number(event.key) : null;
    let done = true;
    if (kind === "compare" && digit === 0) pick(radios()[3]);
    else if (kind === "compare" && (digit === 1 || digit === 2)) {
      // pressed again, it is so much the better
      const all = radios();
      const at = all.findIndex((radio) => radio.checked) - 3;
      const side = digit === 1 ? -1 : 1;
      const strength = at * side > 0 ? (Math.abs(at) % 3) + 1 : 2;
      pick(all[3 + side * strength]);
    } else if (kind === "rate" && digit >= 1 && digit <= 7) pick(radios()[digit - 1]);
    else if (kind === "thumbs" && (digit === 1 || digit === 2)) pick(radios()[digit - 1]);
    else if (kind === "rank" && digit >= 1 && digit <= cards().length) {
      cards().find((card) => Number(card.dataset.answer) === digit - 1).focus();
    } else if (kind === "rank" && (event.key === "ArrowUp" || event.key === "ArrowDown") && !on.matches("select, .text")) {
      const by = arrows[event.key];
      const card = on.closest(".answer");
      if (event.shiftKey && card) move(card, by);
      else {
        const all = cards();
        const next = all[card ? Math.min(Math.max(all.indexOf(card) + by, 0), all.length - 1) : 0];
        next.focus();
      }
    } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && kind !== "rank" && !on.matches("select, .text")) {
      step(arrows[event.key]);
    } else if (kind === "rate" && form.querySelector(`[data-key="${CSS.escape(event.key)}"]`)) {
      form.querySelector(`[data-key="${CSS.escape(event.key)}"]`).click();
    } else if (Object.hasOwn(keys, event.key)) keys[event.key]();
    else done = false;
    if (done) event.preventDefault();
  });
}

if (undo) {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, input:not([type=radio], [type=checkbox]), select");
    if (event.key === "u" && !event.repeat && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      undo.querySelector("button").click();
    }
  });
}
