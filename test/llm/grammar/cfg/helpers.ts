import type { Frame } from '../../../../llm/grammar/automaton.ts';
import { advanceAll, complete, start } from '../../../../llm/grammar/stack.ts';

/** How a frame, as a document's first, takes a text: it is one of its texts, a beginning of one, or neither. */
export function verdict(frame: Frame, text: string | Uint8Array): 'accepted' | 'open' | 'refused' {
  const stack = advanceAll(start(frame), typeof text === 'string' ? new TextEncoder().encode(text) : text);
  if (stack === null) return 'refused';
  return complete(stack) ? 'accepted' : 'open';
}

export function accepts(frame: Frame, text: string | Uint8Array): boolean {
  return verdict(frame, text) === 'accepted';
}
