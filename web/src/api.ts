// The only file that talks to the server. Work is a job: it is posted, watched by server-sent
// events, and can be cancelled. URLs are relative, so that the app works below any path prefix.
import type { Failure, Progress, Session } from './types';

export class ServerError extends Error {
  constructor(
    readonly failure: Failure,
    readonly status: number,
  ) {
    super(failure.wrong);
  }
}

async function failed(response: Response): Promise<ServerError> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error: Failure };
    if (error.wrong) return new ServerError(error, response.status);
  } catch {
    // Not ours: a proxy's page, say.
  }
  const wrong = `The server said ${response.status} ${response.statusText}`.trim();
  return new ServerError({ wrong, expected: null, found: null, do: null }, response.status);
}

async function answered(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(`api/${path}`, init);
  } catch {
    const wrong = 'The server does not answer';
    const todo = 'see whether headwater serve still runs';
    throw new ServerError({ wrong, expected: null, found: null, do: todo }, 0);
  }
  if (!response.ok) throw await failed(response);
  return response;
}

export async function get<T>(path: string): Promise<T> {
  return (await (await answered(path)).json()) as T;
}

export async function getBytes(path: string): Promise<ArrayBuffer> {
  return (await answered(path)).arrayBuffer();
}

function posting(body: unknown): RequestInit {
  const headers = { 'content-type': 'application/json' };
  return { method: 'POST', headers, body: JSON.stringify(body) };
}

export async function post<T>(path: string, body: unknown): Promise<T> {
  return (await (await answered(path, posting(body))).json()) as T;
}

/** A file made by the server (an export), with the name it gave. */
export async function postForFile(path: string, body: unknown): Promise<{ name: string; file: Blob }> {
  const response = await answered(path, posting(body));
  const told = /filename="([^"]+)"/.exec(response.headers.get('content-disposition') ?? '');
  return { name: told?.[1] ?? 'headwater', file: await response.blob() };
}

export const session = (): Promise<Session> => get<Session>('session');

/** What happens to a job, one call each, until `result`, `error` or `cancelled`. */
export interface Watch {
  /** It waits for so many others. */
  queued?: (before: number) => void;
  running?: () => void;
  progress?: (progress: Progress) => void;
  /** A piece of generated text. */
  token?: (token: { text: string; probability: number | null }) => void;
}

export interface Job<T> {
  id: Promise<string>;
  result: Promise<T>;
  cancel: () => void;
}

export class Cancelled extends Error {}

/** Post work of a kind and follow it to its end. */
export function start<T>(kind: string, asked: Record<string, unknown>, watch: Watch = {}): Job<T> {
  const id = post<{ id: string }>('jobs', { kind, ...asked }).then((made) => made.id);
  let stopped = false;
  const result = id.then((found) => follow<T>(found, watch));
  const cancel = (): void => {
    if (stopped) return;
    stopped = true;
    void id.then((found) => answered(`jobs/${found}`, { method: 'DELETE' })).catch(() => undefined);
  };
  return { id, result, cancel };
}

/** Follow a job that was posted before. */
export function follow<T>(id: string, watch: Watch): Promise<T> {
  return new Promise((done, fail) => {
    const source = new EventSource(`api/jobs/${id}/events`);
    const on = (name: string, act: (data: never) => void, last = false): void =>
      source.addEventListener(name, (event) => {
        const { data } = event as MessageEvent<string>;
        if (data === undefined) return; // the browser's own "error": it reconnects
        if (last) source.close();
        act(JSON.parse(data) as never);
      });
    on('queued', ({ before }: { before: number }) => watch.queued?.(before));
    on('running', () => watch.running?.());
    on('progress', (progress: Progress) => watch.progress?.(progress));
    on('token', (token: { text: string; probability: number | null }) => watch.token?.(token));
    on('result', (found: T) => done(found), true);
    on('failed', ({ error }: { error: Failure }) => fail(new ServerError(error, 500)), true);
    on('cancelled', () => fail(new Cancelled('cancelled')), true);
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      const wrong = 'The connection to the server was lost';
      fail(new ServerError({ wrong, expected: null, found: null, do: 'ask again' }, 0));
    };
  });
}
