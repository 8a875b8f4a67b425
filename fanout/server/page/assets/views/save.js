// Files that the reader saves.
import { send } from "../api.js";

export function saveFile(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

/** Save what a path gives. */
export const save = async (path, name) => saveFile(await (await send(path)).blob(), name);
