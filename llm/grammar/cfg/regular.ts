import { Frame, Interned, type Outcome } from '../automaton.ts';
import { DEAD, meets, NONE, type Language } from '../text/language.ts';
import { regex } from '../text/regex.ts';
import { begun, continued, type Begun } from './utf8.ts';

/**
 * The texts that a regular expression matches as a whole, as if it stood between ^ and $ (but for those, its notation is that
 * of `pattern` in JSON Schema: text/pattern.ts). As they are, in UTF-8: not as JSON strings.
 */
export function regular(pattern: string): Frame {
  // First alone: what is wrong is told of the pattern as it was written, and ")(" is none.
  regex(pattern);
  const language = regex(`^(?:${pattern})$`);
  if (language.start === DEAD) throw new Error(`[grammar] pattern ${JSON.stringify(pattern)} matches no text`);
  return texts(language);
}

/** The texts of a language as they are, in UTF-8: not as a JSON string. A frame that stands alone; it never ends by itself. */
export function texts(language: Language): Frame {
  if (language.start === DEAD) throw new Error('[grammar] the language holds no text');
  return new Texts(language).frame(language.start, null);
}

class Texts {
  readonly language: Language;
  private readonly frames = new Interned<Text>();

  constructor(language: Language) {
    this.language = language;
  }

  frame(state: number, character: Begun | null): Text {
    const key = character === null ? `${state}` : `${state} ${character.from} ${character.to} ${character.left}`;
    return this.frames.get(key, () => new Text(this, key, state, character));
  }
}

class Text extends Frame {
  private readonly texts: Texts;
  private readonly state: number;
  private readonly character: Begun | null;
  private readonly key: string;

  constructor(texts: Texts, key: string, state: number, character: Begun | null) {
    super();
    this.texts = texts;
    this.state = state;
    this.character = character;
    this.key = key;
  }

  override get signature(): string {
    return `text ${this.key} of ${this.texts.language.key}`;
  }

  override end(): Outcome | null {
    return this.character === null && this.texts.language.label(this.state) !== NONE ? 0 : null;
  }

  protected override step(byte: number): Text | null {
    const character = this.character === null ? begun(byte) : continued(this.character, byte);
    const { language } = this.texts;
    if (character === null || !meets(language.ranges(this.state), character.from, character.to)) return null;
    if (character.left > 0) return this.texts.frame(this.state, character);
    return this.texts.frame(language.step(this.state, character.from), null);
  }
}
