// A run as others take it: text, JSON, a command line, a program.
const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function toText(run) {
  const answers = run.columns.value.map((column) => `## ${column.place.label}\n\n${column.text || column.end.value?.error?.message || ""}`);
  return [`# ${run.request.value?.prompt ?? ""}`, ...answers].join("\n\n");
}

export function toJson(run) {
  const choices = run.columns.value.map((column) => ({ ...column.end.value, ...pickPlace(column.place), text: column.text }));
  return JSON.stringify({ ids: run.ids.value, request: run.request.value, choices }, null, 2);
}

const pickPlace = ({ index, entry, sample, model, label }) => ({ index, entry, sample, model, label });

export function toCurl(body, origin, hasKey) {
  const key = hasKey ? ' \\\n  -H "Authorization: Bearer $FANOUT_KEY"' : "";
  return `curl ${origin}/v1/completion${key} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quote(JSON.stringify(body, null, 2))}`;
}

export function toPython(body, origin, hasKey) {
  const key = hasKey ? `, "Authorization": f"Bearer {os.environ['FANOUT_KEY']}"` : "";
  return `import json
${hasKey ? "import os\n" : ""}from urllib.request import Request, urlopen

body = json.loads(r"""${JSON.stringify(body, null, 2)}""")
headers = {"Content-Type": "application/json"${key}}
request = Request("${origin}/v1/completion", json.dumps(body).encode(), headers)
for choice in json.load(urlopen(request))["choices"]:
    print(choice["label"], choice["text"] or choice["error"]["message"], sep=": ")
`;
}
