/** What this engine does not do exactly, refused by name; the message says where and what would be possible. */
export class Unsupported extends Error {
  override readonly name = 'Unsupported';
}
