// All pictures of one prompt: tiles that are liked or not, one of which the arrow keys are on.

import { words } from "./language.js";

const GAP_PX = 10;
const PADDING_PX = 6;
const LEAST_PX = 104;

/** Columns that make square tiles largest; where even these are too small, the page scrolls. */
function columnsFor(n, { width, height }) {
  let best = { columns: 1, side: 0 };
  for (let columns = 1; columns <= n; columns += 1) {
    const rows = Math.ceil(n / columns);
    const across = (width - GAP_PX * (columns - 1)) / columns;
    const side = Math.min(across, (height - GAP_PX * (rows - 1)) / rows);
    if (side > best.side) best = { columns, side };
  }
  if (best.side >= LEAST_PX) return best;
  const columns = Math.max(1, Math.min(n, Math.floor((width + GAP_PX) / (LEAST_PX + GAP_PX))));
  return { columns, side: (width - GAP_PX * (columns - 1)) / columns };
}

export class Grid {
  #box;
  #entries = [];
  #at = 0;
  #columns = 1;

  /** Called with the tile that was tapped. */
  onTap = () => {};

  constructor(box) {
    this.#box = box;
    new ResizeObserver(() => this.#fit()).observe(box);
    box.addEventListener("click", ({ target }) => {
      const tile = target.closest(".tile");
      if (tile) this.#tapped([...box.children].indexOf(tile));
    });
    box.addEventListener("focusin", ({ target }) => this.#point([...box.children].indexOf(target)));
  }

  /** The tile the arrow keys are on. */
  get at() {
    return this.#at;
  }

  /** Show pictures with the answers they have so far; tiles of the same pictures are kept. */
  show({ entries, answers }) {
    const fresh =
      entries.length !== this.#entries.length || entries.some((e, i) => e !== this.#entries[i]);
    if (fresh) this.#fill(entries);
    for (const [i, tile] of [...this.#box.children].entries()) this.#draw(tile, i, answers[i]);
  }

  clear() {
    this.#entries = [];
    this.#box.replaceChildren();
  }

  #fill(entries) {
    this.#entries = entries;
    this.#at = 0;
    this.#box.replaceChildren(...entries.map((entry) => this.#tile(entry)));
    this.#fit();
    this.#box.scrollTop = 0;
    this.#box.firstChild?.focus({ preventScroll: true });
  }

  #tile(entry) {
    const tile = document.createElement("button");
    tile.type = "button";
    tile.className = "tile";
    if (entry.state === "ready") {
      entry.image.alt = "";
      entry.image.removeAttribute("width");
      entry.image.removeAttribute("height");
      entry.image.style.transform = "";
      tile.append(entry.image);
    }
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.setAttribute("aria-hidden", "true");
    tile.append(mark);
    return tile;
  }

  #draw(tile, i, { label, reason }) {
    tile.dataset.label = label;
    tile.tabIndex = i === this.#at ? 0 : -1;
    tile.setAttribute("aria-pressed", String(label === "like"));
    const plain = words.tileSaid[label];
    const said = reason ? `${plain}: ${words.reasons[reason]}` : plain;
    tile.setAttribute("aria-label", words.tile(i + 1, this.#entries.length, said));
    const marked = label === "flag" || label === "skip";
    tile.lastChild.textContent = marked ? (words.reasons[reason] ?? plain) : "";
  }

  #fit() {
    const room = {
      width: this.#box.clientWidth - 2 * PADDING_PX,
      height: this.#box.clientHeight - 2 * PADDING_PX,
    };
    if (this.#entries.length === 0 || room.width <= 0) return;
    const { columns, side } = columnsFor(this.#entries.length, room);
    this.#columns = columns;
    this.#box.style.setProperty("--columns", String(columns));
    this.#box.style.setProperty("--side", `${Math.floor(side)}px`);
    for (const { image } of this.#entries) {
      image?.classList.toggle("crisp", image.naturalWidth < side);
    }
  }

  #tapped(index) {
    this.#point(index);
    this.onTap(index);
  }

  #point(index) {
    if (index < 0) return;
    this.#at = index;
    for (const [i, tile] of [...this.#box.children].entries()) tile.tabIndex = i === index ? 0 : -1;
  }

  /** Move the keys' tile: "left", "right", "up", "down", "first", "last". */
  move(where) {
    const last = this.#entries.length - 1;
    const step = { left: -1, right: 1, up: -this.#columns, down: this.#columns }[where];
    const to = { first: 0, last }[where] ?? this.#at + step;
    if (to < 0 || to > last) return;
    this.#point(to);
    this.#box.children[to].focus();
  }
}
