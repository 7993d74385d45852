import type { z } from 'zod';

const KINDS: Readonly<Record<string, string>> = {
  int: 'a whole number',
  number: 'a number',
  string: 'text',
  boolean: 'true or false',
  array: 'a list',
  tuple: 'a list',
  object: 'keys and values',
  record: 'keys and values',
};

/**
 * What a schema has found wrong with `root`, in words that follow the name of the place: "is missing", "must be a whole
 * number, not 1.5". Unknown keys are left to callers, who know the right ones.
 */
export function complaint(issue: z.core.$ZodIssue, root: unknown): string {
  if (issue.code === 'custom') return issue.message;
  const value = issue.path.reduce<unknown>((place, key) => (place as Record<PropertyKey, unknown>)[key], root);
  if (value === undefined) return 'is missing';
  return `must be ${wanted(issue)}, not ${typeof value === 'number' ? value : shortened(JSON.stringify(value))}`;
}

/** A file of another kind would be shown whole. */
const shortened = (text: string): string => (text.length > 80 ? `${text.slice(0, 80)}…` : text);

function wanted(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return KINDS[issue.expected] ?? issue.expected;
    case 'invalid_value':
      return `one of ${issue.values.join(', ')}`;
    case 'invalid_union':
      return 'options' in issue ? `one of ${issue.options?.join(', ')}` : issue.message;
    case 'too_small':
      if (issue.origin === 'array') return `a list of at least ${issue.minimum}`;
      return issue.inclusive ? `${issue.minimum} or more` : `more than ${issue.minimum}`;
    case 'too_big':
      if (issue.origin === 'array') return `a list of at most ${issue.maximum}`;
      return issue.inclusive ? `${issue.maximum} or less` : `less than ${issue.maximum}`;
    default:
      return issue.message; // a schema's own
  }
}
