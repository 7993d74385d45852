/** The bytes of each token, by id, of a rank file: a line has a token in base64, a space, and its id. */
export function readRanks(text: string): (Uint8Array | null)[] {
  const tokens: (Uint8Array | null)[] = [];
  const lines = text.split('\n');
  lines.forEach((line, i) => {
    if (line.trim() === '') return;
    const match = /^([A-Za-z0-9+/]+={0,2}) (\d{1,9})\r?$/.exec(line);
    if (!match)
      throw new Error(`[grammar] line ${i + 1} of the ranks is not a token in base64 and its number: ${line}`);
    const id = Number(match[2]);
    if (id > 2 * lines.length)
      throw new Error(`[grammar] line ${i + 1} of the ranks numbers one of ${lines.length} tokens ${id}`);
    while (tokens.length <= id) tokens.push(null);
    if (tokens[id] !== null) throw new Error(`[grammar] line ${i + 1} of the ranks has the number ${id} again`);
    const characters = atob(match[1]!);
    const bytes = (tokens[id] = new Uint8Array(characters.length));
    for (let at = 0; at < bytes.length; at += 1) bytes[at] = characters.charCodeAt(at);
  });
  return tokens;
}
