// The few operations a transformer is made of. A matrix (T, D) is a Float64Array, row by row.

/** A linear map y = x W^T + b with W (out, in): the one operation that takes time, so it can be replaced (kernel.mjs). */
export class PlainAlgebra {
  name = "JavaScript";

  /** Make `map` ready for use: { weight (out in), bias (out) or null, inputs, outputs }. Nothing to do here. */
  adopt(map) {
    return map;
  }

  /** x (T, in) -> (T, out) */
  linear(map, x, T) {
    const { weight: W, bias, inputs, outputs } = map, y = new Float64Array(T * outputs), whole = inputs & ~3;
    for (let t = 0; t < T; t++) {
      for (let o = 0; o < outputs; o++) {
        let a = bias ? bias[o] : 0, b = 0, c = 0, d = 0; // four sums: a processor works on all of them at once
        const w = o * inputs, at = t * inputs;
        for (let i = 0; i < whole; i += 4) {
          a += W[w + i] * x[at + i];
          b += W[w + i + 1] * x[at + i + 1];
          c += W[w + i + 2] * x[at + i + 2];
          d += W[w + i + 3] * x[at + i + 3];
        }
        for (let i = whole; i < inputs; i++) a += W[w + i] * x[at + i];
        y[t * outputs + o] = a + b + (c + d);
      }
    }
    return y;
  }
}

const EPS = 2 ** -23;

/** RMSNorm: x (T, D) / sqrt(mean(x^2) + eps) * weight (D) */
export function rmsNorm(x, weight) {
  const D = weight.length, y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += D) {
    let square = 0;
    for (let d = 0; d < D; d++) square += x[at + d] * x[at + d];
    const scale = 1 / Math.sqrt(square / D + EPS);
    for (let d = 0; d < D; d++) y[at + d] = x[at + d] * scale * weight[d];
  }
  return y;
}

/** x + y, the same shape */
export function add(x, y) {
  const sum = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) sum[i] = x[i] + y[i];
  return sum;
}

export const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** SwiGLU's inner half: (T, 2F) = (l | g) -> l * SiLU(g), (T, F) */
export function gatedUnit(hidden, T) {
  const F = hidden.length / T / 2, y = new Float64Array(T * F);
  for (let t = 0; t < T; t++) {
    for (let f = 0; f < F; f++) {
      const gate = hidden[t * 2 * F + F + f];
      y[t * F + f] = hidden[t * 2 * F + f] * gate * sigmoid(gate);
    }
  }
  return y;
}

/** cos and sin of position * 10000^(-2i / K) for the pairs i of a head: computed once for every position. */
const turns = new Map();

function turn(position, K) {
  const key = position * 4096 + K;
  if (!turns.has(key)) {
    const angles = Array.from({ length: K / 2 }, (_, i) => position * 10000 ** ((-2 * i) / K));
    turns.set(key, Float64Array.from(angles.flatMap((angle) => [Math.cos(angle), Math.sin(angle)])));
  }
  return turns.get(key);
}

/** RoPE: turn the pairs of every head of x (T, H K), in place, by the angles of their positions first, first + 1, ... */
export function rotate(x, T, K, first = 0) {
  const width = x.length / T;
  for (let t = 0; t < T; t++) {
    const angles = turn(first + t, K);
    for (let at = t * width; at < (t + 1) * width; at += K) {
      for (let i = 0; i < K; i += 2) {
        const cos = angles[i], sin = angles[i + 1], even = x[at + i], odd = x[at + i + 1];
        x[at + i] = even * cos - odd * sin;
        x[at + i + 1] = even * sin + odd * cos;
      }
    }
  }
  return x;
}

/** Numbers -> shares that add up to 1, in place. */
export function softmax(scores) {
  let most = -Infinity, sum = 0;
  for (let i = 0; i < scores.length; i++) if (scores[i] > most) most = scores[i];
  for (let i = 0; i < scores.length; i++) sum += scores[i] = Math.exp(scores[i] - most);
  for (let i = 0; i < scores.length; i++) scores[i] /= sum;
  return scores;
}

/**
 * softmax(q k^T / sqrt(K)) v for every head.
 *
 * q (T, Hq K), keys and values (M, Hkv K); `sees(t)` says how many of the first keys query t may look at.
 * Fewer key heads are shared by neighbouring query heads; fewer query heads are tiled (sparse-query attention).
 * Returns { out (T, H K), weights (T, M) }, H the larger count, the weights a mean over heads.
 */
export function attend(q, keys, values, { T, M, K, queryHeads: Hq, kvHeads: Hkv, sees = () => M }) {
  const H = Math.max(Hq, Hkv), out = new Float64Array(T * H * K), weights = new Float64Array(T * M);
  for (let t = 0; t < T; t++) {
    const seen = sees(t);
    for (let h = 0; h < H; h++) {
      const from = (t * Hq + (h % Hq)) * K, group = Math.floor((h * Hkv) / H) * K;
      const shares = softmax(compare(q, from, keys, group, seen, Hkv * K, K));
      const to = (t * H + h) * K;
      for (let m = 0; m < seen; m++) {
        weights[t * M + m] += shares[m] / H;
        for (let i = 0, at = m * Hkv * K + group; i < K; i++) out[to + i] += shares[m] * values[at + i];
      }
    }
  }
  return { out, weights };
}

/** One query head against the first `seen` keys: (seen) scores. */
function compare(q, from, keys, group, seen, width, K) {
  const scores = new Float64Array(seen), scale = 1 / Math.sqrt(K);
  for (let m = 0; m < seen; m++) {
    let dot = 0;
    for (let i = 0, at = m * width + group; i < K; i++) dot += q[from + i] * keys[at + i];
    scores[m] = dot * scale;
  }
  return scores;
}
