// The settings of a campaign as a form. What somebody is editing is never overwritten by what the
// server says meanwhile.

import { byId, percent } from "./dom.js";

export class Settings {
  #api;
  #campaign = null;
  #form = byId("settings");
  #edited = false;

  constructor(api) {
    this.#api = api;
    this.#form.addEventListener("input", () => this.#edit(true));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save(this.#read());
    });
    this.#form.addEventListener("reset", (event) => {
      event.preventDefault();
      this.#fill();
    });
    byId("defaults").addEventListener("click", () => {
      this.#save(Object.fromEntries(this.#campaign.changed.map((name) => [name, null])));
    });
  }

  /** Show a campaign as the server has it, unless it is being edited. */
  show(campaign) {
    const other = this.#campaign?.id !== campaign.id;
    this.#campaign = campaign;
    if (this.#edited && !other) return;
    if (other) this.#say("");
    this.#fill();
  }

  #fill() {
    const fields = this.#form.elements;
    const { settings, changed } = this.#campaign;
    fields.instruction.value = settings.instruction ?? "";
    fields.votes.value = settings.votes;
    fields.quorum.value = settings.quorum ?? "";
    fields.gold_share.value = settings.gold_share;
    fields.layout.value = settings.layout;
    fields.weights.checked = settings.weights === "reliability";
    byId("defaults").hidden = changed.length === 0;
    this.#edit(false);
  }

  #edit(edited) {
    const fields = this.#form.elements;
    this.#edited = edited;
    fields.gold_shown.value = percent(Number(fields.gold_share.value));
    fields.quorum.max = fields.votes.value;
    for (const button of this.#form.querySelectorAll("[type=submit], [type=reset]")) {
      button.disabled = !edited;
    }
    if (edited) this.#say("Not saved yet.");
  }

  #read() {
    const fields = this.#form.elements;
    const said = {
      instruction: fields.instruction.value.trim() || null,
      votes: fields.votes.valueAsNumber,
      quorum: fields.quorum.value === "" ? null : fields.quorum.valueAsNumber,
      gold_share: fields.gold_share.valueAsNumber,
      layout: fields.layout.value,
      weights: fields.weights.checked ? "reliability" : "equal",
    };
    const { settings } = this.#campaign;
    // Only what was changed: the rest goes on following the server's defaults.
    return Object.fromEntries(Object.entries(said).filter(([name, value]) => settings[name] !== value));
  }

  async #save(patch) {
    try {
      const id = encodeURIComponent(this.#campaign.id);
      this.#campaign = await this.#api.patch(`campaigns/${id}`, patch);
      this.#fill();
      this.#say("Saved. It holds for groups that are asked about from now on.");
    } catch (error) {
      this.#say(`Not saved: ${error.message}`);
    }
  }

  #say(text) {
    byId("settings-said").textContent = text;
  }
}
