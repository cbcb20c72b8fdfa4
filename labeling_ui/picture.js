// One picture on its stage: fitted or pixel by pixel, pinched larger, dragged, swiped away. A swipe
// judges only while the whole picture is in view; enlarged, a drag looks around.

const SWIPE_PX = 70;
const TILT = 0.02;
const MOST = 8;
const WHEEL = 0.002; // a notch of 120 px enlarges by a quarter
const LINE_PX = 20;

/** Size in CSS pixels at which small pictures keep square, equal pixels on this screen. */
function fittingScale(image, room) {
  const ratio = window.devicePixelRatio || 1;
  const fit = Math.min(room.width / image.naturalWidth, room.height / image.naturalHeight);
  if (fit <= 1) return { scale: fit, crisp: false };
  return { scale: Math.max(1, Math.floor(fit * ratio)) / ratio, crisp: true };
}

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

export class Picture {
  #stage;
  #image = null;
  #actual = false;
  #zoom = 1;
  #x = 0;
  #y = 0;
  #pointers = new Map();

  /** Called with "left" or "right". */
  onSwipe = () => {};
  /** Called with a signed share of a whole swipe while a finger moves, 0 when it is over. */
  onDrag = () => {};

  constructor(stage) {
    this.#stage = stage;
    new ResizeObserver(() => this.#fit()).observe(stage);
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      stage.addEventListener(end, (event) => this.#up(event));
    }
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("dblclick", () => this.#rest());
  }

  /** One picture pixel per screen pixel, for this picture and the next ones. */
  get actual() {
    return this.#actual;
  }

  toggleActual() {
    this.#actual = !this.#actual;
    this.#rest();
    this.#fit();
  }

  /** Show an image that is decoded already, or say in words why there is none. */
  show(image, words) {
    this.#image = image;
    this.#pointers.clear();
    this.#rest();
    if (image) {
      this.#stage.replaceChildren(image);
      this.#fit();
      return;
    }
    const text = document.createElement("p");
    text.className = "broken";
    text.textContent = words;
    this.#stage.replaceChildren(text);
  }

  #rest() {
    this.#zoom = 1;
    this.#x = 0;
    this.#y = 0;
    this.#place();
  }

  #fit() {
    const room = this.#stage.getBoundingClientRect();
    if (!this.#image || room.width === 0 || room.height === 0) return;
    const fitting = fittingScale(this.#image, room);
    const scale = this.#actual ? 1 / (window.devicePixelRatio || 1) : fitting.scale;
    this.#image.width = this.#image.naturalWidth * scale;
    this.#image.height = this.#image.naturalHeight * scale;
    // Whole pixels, or equal squares would be drawn unequal.
    this.#image.style.left = `${Math.round((room.width - this.#image.width) / 2)}px`;
    this.#image.style.top = `${Math.round((room.height - this.#image.height) / 2)}px`;
    this.#image.classList.toggle("crisp", this.#actual || fitting.crisp);
    this.#place();
  }

  #place(tilt = 0) {
    if (!this.#image) return;
    const moved = this.#x !== 0 || this.#y !== 0 || this.#zoom !== 1;
    this.#image.style.transform = moved
      ? `translate(${this.#x}px, ${this.#y}px) scale(${this.#zoom}) rotate(${tilt}deg)`
      : "";
  }

  /** How far the picture reaches out of the stage, in CSS pixels to either side. */
  #overhang() {
    const room = this.#stage.getBoundingClientRect();
    const over = (drawn, given) => Math.max(0, (drawn * this.#zoom - given) / 2);
    return {
      x: over(this.#image?.width ?? 0, room.width),
      y: over(this.#image?.height ?? 0, room.height),
    };
  }

  get #enlarged() {
    const { x, y } = this.#overhang();
    return x > 1 || y > 1;
  }

  #down(event) {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    this.#stage.setPointerCapture(event.pointerId);
    const { clientX: x, clientY: y } = event;
    this.#pointers.set(event.pointerId, { x, y, fromX: x, fromY: y, touch: event.pointerType });
  }

  #move(event) {
    const pointer = this.#pointers.get(event.pointerId);
    if (!pointer) return;
    const before = this.#span();
    const [dx, dy] = [event.clientX - pointer.x, event.clientY - pointer.y];
    pointer.x = event.clientX;
    pointer.y = event.clientY;
    if (this.#pointers.size === 2) {
      const after = this.#span();
      if (before > 0) this.#zoom = clamp((this.#zoom * after) / before, 1, MOST);
      pointer.pinched = true;
    }
    if (this.#pointers.size === 2 || this.#enlarged) this.#pan(dx, dy);
    else if (pointer.touch !== "mouse" && !pointer.pinched) this.#drag(pointer);
  }

  #pan(dx, dy) {
    const over = this.#overhang();
    const share = 1 / Math.max(this.#pointers.size, 1);
    this.#x = clamp(this.#x + dx * share, -over.x, over.x);
    this.#y = clamp(this.#y + dy * share, -over.y, over.y);
    this.#place();
  }

  #drag(pointer) {
    this.#x = pointer.x - pointer.fromX;
    this.#y = 0;
    this.#place(this.#x * TILT);
    this.onDrag(clamp(this.#x / SWIPE_PX, -1, 1));
  }

  #up(event) {
    const pointer = this.#pointers.get(event.pointerId);
    this.#pointers.delete(event.pointerId);
    if (!pointer || this.#pointers.size > 0) {
      for (const other of this.#pointers.values()) other.pinched = true;
      return;
    }
    this.onDrag(0);
    const [dx, dy] = [pointer.x - pointer.fromX, pointer.y - pointer.fromY];
    if (this.#enlarged || pointer.pinched || pointer.touch === "mouse") return;
    this.#rest();
    if (event.type === "pointercancel") return;
    if (Math.abs(dx) >= SWIPE_PX && Math.abs(dx) > 1.5 * Math.abs(dy)) {
      this.onSwipe(dx > 0 ? "right" : "left");
    }
  }

  /** Zoom about the place the pointer is on. */
  #wheel(event) {
    if (!this.#image) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PX : 1;
    const before = this.#zoom;
    this.#zoom = clamp(before * Math.exp(-event.deltaY * lines * WHEEL), 1, MOST);
    const room = this.#stage.getBoundingClientRect();
    const grown = this.#zoom / before - 1;
    const fromCentre = (at, start, size) => at - start - size / 2;
    this.#pan(
      (this.#x - fromCentre(event.clientX, room.left, room.width)) * grown,
      (this.#y - fromCentre(event.clientY, room.top, room.height)) * grown,
    );
  }

  /** Distance of two fingers; 0 for one. */
  #span() {
    const [one, other] = [...this.#pointers.values()];
    return other ? Math.hypot(one.x - other.x, one.y - other.y) : 0;
  }
}
