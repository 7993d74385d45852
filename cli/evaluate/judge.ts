/** Scores what is drawn of a subject, by the measures of `diffusion/measures.ts`, and baselines that need no training. */
import {
  distance,
  diversity,
  FEATURES,
  featuresOf,
  mean,
  preservation,
  subjectScores,
} from '../../diffusion/measures.ts';
import type { Drawn, Feature, Features, Known } from '../../diffusion/measures.ts';
import type { StableDiffusion } from '../../diffusion/folder.ts';
import type { Picture } from '../../diffusion/pictures.ts';
import { reconstruct } from '../../diffusion/pretrain_vae.ts';
import { isCat } from '../../diffusion/world.ts';
import type { Subject, World, WorldPicture } from '../../diffusion/world.ts';
import type { Shot } from '../tasks/shots.ts';
import type { Scores } from './summary.ts';

/** Subjects' pictures of faces. */
export type Expressions = ReadonlyMap<Subject, readonly WorldPicture[]>;

/** Knows all cats, and scores what is drawn of one. */
export class Judge {
  readonly #model: StableDiffusion;
  readonly #subjects: Expressions;
  readonly #cats: readonly Known[];
  readonly #names: ReadonlyMap<string, string>;

  private constructor(
    model: StableDiffusion,
    subjects: Expressions,
    cats: readonly Known[],
    names: ReadonlyMap<string, string>,
  ) {
    this.#model = model;
    this.#subjects = subjects;
    this.#cats = cats;
    this.#names = names;
  }

  static async prepare(
    model: StableDiffusion,
    world: World,
    subjects: Expressions,
    names: ReadonlyMap<string, string>,
  ): Promise<Judge> {
    const all = [...world.training, ...world.heldOut, ...Object.values(world.subjects).flat()];
    const cats = all.filter(isCat);
    const features = await featuresOf(model.vae, cats.map(({ picture }) => picture())); // prettier-ignore
    return new Judge(
      model,
      subjects,
      cats.map(({ set, name }, i) => ({ set, name, features: features[i]! })),
      names,
    );
  }

  /** Features of drawings by shot. */
  async see(shots: readonly (readonly Picture[])[]): Promise<Features[][]> {
    const features = await featuresOf(this.#model.vae, shots.flat());
    let next = 0;
    return shots.map((pictures) => pictures.map(() => features[next++]!));
  }

  /** Scores what was drawn `after` training for the `shots`, one list of drawings a shot; `before` from the same seeds. */
  score(
    subject: Subject,
    shots: readonly Shot[],
    before: readonly (readonly Features[])[],
    after: readonly (readonly Features[])[],
  ): Scores {
    const drawn = (kind: Shot['kind']) =>
      shots.flatMap((shot, i): Drawn[] =>
        shot.kind === kind ? after[i]!.map((features) => ({ name: this.#names.get(shot.prompt)!, features })) : [],
      );
    const own = this.#own(subject).map(({ features }) => features);
    const cats = this.#cats.map(({ features }) => features);
    const itself = shots.findIndex(({ kind }) => kind === 'class'); // the first class prompt is the class's name
    const ofSubject = after.filter((_, i) => shots[i]!.kind === 'shown' || shots[i]!.kind === 'unseen');
    const drift = (kind: Shot['kind'], feature: Feature) =>
      mean(
        shots.flatMap((shot, i) =>
          shot.kind === kind ? after[i]!.map((one, k) => distance(one[feature], before[i]![k]![feature])) : [],
        ),
      );
    return byFeature((feature) => ({
      ...this.#subjectScores(subject, drawn('shown'), drawn('unseen'), feature),
      drift: drift('class', feature),
      ...(shots.some(({ kind }) => kind === 'other') ? { neighbours: drift('other', feature) } : {}),
      pres: preservation(after[itself]!, own, cats, feature),
      ...(after[itself]!.length > 1
        ? {
            div: mean(ofSubject.map((drawings) => diversity(drawings, feature))),
            'class div': diversity(after[itself]!, feature),
          }
        : {}),
    }));
  }

  /**
   * A memoriser: for an expression it gives the training picture whose name has the largest share of words in common with
   * what is asked for (Jaccard's index; the first of equals), so its own for one that was shown.
   */
  memoriser(subject: Subject, shown: readonly string[]): Scores {
    const known = this.#own(subject);
    const answer = ({ name }: Known): Drawn => {
      const alike = shown.map((one) => overlap(name.split(' '), one.split(' ')));
      const nearest = shown[alike.indexOf(Math.max(...alike))]!;
      return { name, features: known.find((one) => one.name === nearest)!.features };
    };
    const [seen, unseen] = [true, false].map((kind) => known.filter(({ name }) => shown.includes(name) === kind));
    return byFeature((feature) => this.#subjectScores(subject, seen!.map(answer), unseen!.map(answer), feature));
  }

  /** The true pictures through the autoencoder: what no drawing can surpass by much. */
  async ceiling(subject: Subject): Promise<Scores> {
    const pictures = this.#subjects.get(subject)!;
    const features = await featuresOf(
      this.#model.vae,
      await reconstruct(this.#model.vae, pictures.map(({ picture }) => picture())), // prettier-ignore
    );
    const drawn = pictures.map(({ name }, i) => ({ name, features: features[i]! }));
    return byFeature((feature) => this.#subjectScores(subject, drawn, [], feature));
  }

  /** The subject's own pictures of faces. */
  #own(subject: Subject): Known[] {
    return this.#cats.filter(
      ({ set, name }) => set === subject && this.#subjects.get(subject)!.some((one) => one.name === name),
    );
  }

  #subjectScores(subject: Subject, shown: readonly Drawn[], unseen: readonly Drawn[], feature: Feature) {
    const of = (drawn: readonly Drawn[]) => subjectScores(drawn, this.#cats, subject, feature);
    return {
      ...of([...shown, ...unseen]),
      ...(unseen.length > 0 ? { 'fidelity shown': of(shown).fidelity, 'fidelity unseen': of(unseen).fidelity } : {}),
    };
  }
}

const byFeature = (of: (feature: Feature) => Record<string, number>): Scores =>
  Object.fromEntries(FEATURES.map((feature) => [feature, of(feature)])) as unknown as Scores;

/** Jaccard's index of two lists of words. */
function overlap(a: readonly string[], b: readonly string[]): number {
  const both = new Set(a.filter((word) => b.includes(word))).size;
  return both / new Set([...a, ...b]).size;
}
