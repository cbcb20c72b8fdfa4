// Every word of the labeling page in German; see en.js.

const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;
const about = (seconds) =>
  seconds < 90 ? `${Math.max(1, Math.ceil(seconds))} s` : `${Math.ceil(seconds / 60)} min`;

export default {
  name: "Deutsch",

  title: "Bilder bewerten",
  brand: "Gefällt oder nicht",
  done: "erledigt",
  byYou: " von dir",
  waiting: "offen",
  toSend: "zu senden",
  layout: "Alle Bilder eines Textes auf einmal",
  help: "Hilfe",
  items: "Bilder zum Bewerten",
  yourJudgement: "Dein Urteil",

  instruction: "Gefällt dir dieses Bild zu diesem Text?",
  gridInstruction: "Welche davon gefallen dir zu diesem Text?",
  noPrompt: "(Dieses Bild ist ohne Text entstanden.)",
  madeFor: (prompt) => `Bild zum Text: ${prompt}`,
  next: (n, prompt) => `Als Nächstes:${n > 1 ? ` ${n} Bilder` : ""} ${prompt}`,
  total: (said, done) => `${said} ${done} erledigt.`,

  undo: "Zurück",
  flag: "Melden",
  skip: "Unklar",
  skipAll: "Alle unklar",
  dislike: "Gefällt nicht",
  like: "Gefällt",
  pixels: "100 % Pixel",
  submit: "Absenden",
  submitCount: (liked, n) => `Absenden, ${liked} von ${n} gefallen`,
  said: {
    like: "Gefällt.",
    dislike: "Gefällt nicht.",
    skip: "Unklar.",
    flag: "Gemeldet.",
    submit: "Abgesendet.",
  },
  what: (label) =>
    ({ like: "gefällt", dislike: "gefällt nicht", skip: "unklar", flag: "gemeldet" })[label] ??
    "",
  pictures: (n) => plural(n, "Bild", "Bilder"),

  tile: (i, n, said) => `Bild ${i} von ${n}, ${said}`,
  tileSaid: {
    like: "gefällt",
    dislike: "gefällt nicht",
    skip: "unklar",
    flag: "gemeldet",
  },
  reasons: {
    broken_image: "beschädigt",
    unsafe: "bedenklich",
    cannot_judge: "nicht zu beurteilen",
  },

  flagTitle: "Was stimmt mit diesem Bild nicht?",
  broken_image: "Das Bild ist beschädigt",
  unsafe: "Es ist bedenklich",
  cannot_judge: "Es lässt sich nicht beurteilen",
  cancel: "Abbrechen",
  close: "Schließen",

  keys: "Tasten",
  keysReset: "Zurück zu den üblichen Tasten",
  keysBack: "Die üblichen Tasten gelten wieder.",
  keyNames: { " ": "Leer", Backspace: "Rück" },
  change: "Ändern",
  changeKey: (action) => `Taste für ${action} ändern`,
  pressKey: "Taste drücken",
  pressNew: (action) => `Drücke die neue Taste für ${action}, oder Esc, um sie zu lassen.`,
  keyIs: (action, key) => `${action} ist jetzt ${key}.`,
  keyOfBrowser: (key) => `${key} braucht der Browser.`,
  onlyKey: (key, action) => `${key} ist die einzige Taste für ${action}: ändere zuerst diese.`,
  gridKeys:
    "Bei vielen Bildern auf einmal: Pfeiltasten bewegen, Leertaste oder ein Tippen wählt an und ab, " +
    "Enter sendet ab. Was du nicht anrührst, gefällt nicht.",
  touch: "Finger und Maus",
  swipe: "Wischen nach rechts heißt",
  zoom: "Mit zwei Fingern oder dem Mausrad vergrößern, ziehen, um sich umzusehen.",
  language: "Sprache",
  goodToKnow: "Gut zu wissen",
  aboutSkip:
    "„Unklar“ heißt, dass du es nicht beurteilen kannst: es ist kein Missfallen. „Zurück“ nimmt deine " +
    "Klicks zurück, den letzten zuerst, bis der Auftraggeber sie verwendet hat.",
  aboutKeeping:
    "Jeder Klick bleibt in diesem Browser, bis der Server ihn bestätigt hat, auch über ein Neuladen " +
    "oder eine neue Anmeldung hinweg.",

  loading: "Lädt",
  asking: "Der Server wird nach Bildern gefragt.",
  onTheirWay: "Die nächsten Bilder sind unterwegs.",
  noConnection: "Keine Verbindung",
  tryingAgain: "Der Server wird weiter gesucht.",
  signedOut: "Du bist abgemeldet",
  signedOutText: (clicks) =>
    "Öffne deinen Einladungslink noch einmal in diesem Browser; diese Seite macht von selbst weiter." +
    (clicks > 0 ? ` ${plural(clicks, "Klick bleibt", "Klicks bleiben")} so lange hier.` : ""),
  nothing: "Im Moment nichts für dich",
  withOthers: (n, next) =>
    `${plural(n, "Bild wird", "Bilder werden")} gerade von anderen bewertet. Was sie zurückgeben, ` +
    `kommt von selbst zu dir${next === null ? "" : ` (das nächste in etwa ${about(next)})`}.`,
  yourPart: "Dein Teil ist fürs Erste getan",
  forOthers: (n) =>
    `${plural(n, "Bild, das du bewertet hast, wartet", "Bilder, die du bewertet hast, warten")} auf ` +
    "die Stimmen anderer. Neue Bilder erscheinen hier von selbst.",
  upToDate: "Es warten keine Bilder",
  upToDateText:
    "Du bist auf dem neuesten Stand. Wenn der Trainer nach neuen Bildern fragt, erscheinen sie hier " +
    "von selbst.",
  paused: "Pause",
  pausedText:
    "Du warst weg, darum gingen deine Bilder an andere. Von deinen Klicks ist keiner verloren.",
  resume: "Weiter",
  retry: "Zeit für eine kurze Pause",
  retryText:
    "Einige deiner letzten Antworten weichen von dem ab, was der Auftraggeber sucht. Das geht allen " +
    "einmal so. Bitte lies die Frage noch einmal, atme durch und mach mit frischem Blick weiter.",
  ready: "Ich bin bereit",
  requester: "Danke bis hierher",
  requesterText:
    "Deine Antworten und das, was der Auftraggeber sucht, scheinen zweierlei zu sein. Bitte sprich " +
    "mit der Person, die dich eingeladen hat; danach macht diese Seite von selbst weiter.",
  noAnswer: (clicks, judging) =>
    "Der Server antwortet nicht." +
    (clicks > 0
      ? ` ${plural(clicks, "Klick bleibt hier und wird", "Klicks bleiben hier und werden")} gesendet.`
      : "") +
    (judging ? " Mit den Bildern, die schon da sind, kannst du weitermachen." : ""),
  unkept:
    "Dieser Browser bewahrt nichts auf: noch nicht gesendete Klicks gingen beim Neuladen verloren.",

  late: "Ein Klick kam zu spät: das Bild war schon bei jemand anderem.",
  skipOrFlag: "Dieses Bild ließ sich nicht laden: bitte „Unklar“ oder „Melden“.",
  nothingToUndo: "Es gibt nichts zurückzunehmen.",
  takenBack: "Zurückgenommen: bitte bewerte noch einmal.",
  takenBackGone: "Zurückgenommen. Das Bild ist schon bei jemand anderem.",
  notUndone: (why) => `Nicht zurückgenommen: ${why}.`,
  undoLater: "Dafür braucht es den Server, der noch nicht antwortet. Bitte versuche es noch einmal.",
  notYet: (why) => `Noch nicht: ${why}.`,
  refused: (why) => `Die Klicks bleiben hier, aber der Server nimmt sie nicht an: ${why}`,
  gone: "Ein Bild ist zu jemand anderem gegangen.",
};
