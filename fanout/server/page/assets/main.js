import { html, render } from "./vendor/preact.js";
import { App } from "./app.js";
import { loadModels } from "./catalogue.js";

loadModels();
render(html`<${App} />`, document.getElementById("page"));
