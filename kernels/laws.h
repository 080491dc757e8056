// The laws of tissue, each written once. Temperatures in °C.
#pragma once
#include "portable.h"

// Rows that stay colder than this [K above the reference] and less hurt than this keep their k and W:
// k would change by 0.1 %, W by 2 %.
constexpr float STILL_WARMTH = 0.5f, STILL_DAMAGE = 0.02f;

// exp(x) to about 2 ulp by range reduction and a polynomial (Cody & Waite); the same arithmetic on
// every device, and a form that compilers turn into vector code without relaxed mathematics.
DEVICE float exponential(float x) {
  x = smaller(larger(x, -87.0f), 88.0f);
  const float n = rintf(x * 1.44269504f);
  float r = fmaf(n, -0.693359375f, x);
  r = fmaf(n, 2.12194440e-4f, r);
  float y = 1.9875691500e-4f;
  y = fmaf(y, r, 1.3981999507e-3f);
  y = fmaf(y, r, 8.3334519073e-3f);
  y = fmaf(y, r, 4.1665795894e-2f);
  y = fmaf(y, r, 1.6666665459e-1f);
  y = fmaf(y, r, 5.0000001201e-1f);
  y = fmaf(y, r * r, r + 1.0f);
  return y * float_from_bits(((int)n + 127) << 23);
}

// Temperature T from the enthalpy temperature u (u = T below the boiling range; `latent` is the
// latent heat divided by ρc [K], released while T goes from `boiling` to `boiling + width`).
DEVICE float temperature_from_enthalpy(float u, float boiling, float width, float latent) {
  const float excess = u - boiling;
  const float span = width + latent;
  const float mushy = boiling + excess * (width / span);
  const float vapour = u - latent;
  return excess <= 0.0f ? u : (excess < span ? mushy : vapour);
}

// The factor of `conductivity_ratio` that is no exponential: all of it below the collapse, but for law 2.
DEVICE float linear_ratio(float T, float slope, int law, float collapse) {
  const float linear = larger(1.0f + slope * (smaller(T, collapse) - 37.0f), 0.05f);
  // weights instead of branches, so that the loop around stays vector code
  const float w1 = (float)(law == 1);
  return (1.0f - w1) + w1 * linear;
}

// σ(T)/σ(37 °C): law 0 constant, 1 linear 1 + a (T − 37), 2 exponential exp(a (T − 37)); held above
// `collapse` and multiplied by a factor that falls log-linearly to exp(log_factor) over `width`.
DEVICE float conductivity_ratio(float T, float slope, int law, float collapse, float width,
                                float log_factor) {
  const float warm = slope * (smaller(T, collapse) - 37.0f);
  const float dry = smaller(larger((T - collapse) / width, 0.0f), 1.0f);
  const float w2 = (float)(law == 2);
  return linear_ratio(T, slope, law, collapse) * exponential(w2 * warm + log_factor * dry);
}

// From here on σ may fall because tissue boils [K above the collapse], see `settled_conductivity`.
constexpr float DRYING = -2.0f;

// σ that boiling tissue is given, between σ(T) of now and the `old` one with which it was heated. A cell
// that dries out loses its own heat source: one temperature step late, σ and T would swing from wet to
// dry and back. σ(T') with the T' that the cell would get from the new σ, T' = T + (q Δt/ρc)(σ/σ_old − 1),
// is linearised (backward Euler): the old σ keeps the share g/(1 + g), g = |d ln σ/dT| q Δt/ρc. `gain` is
// |ln factor| Δt/width, c the heat capacity. g stays below 4: where σ falls all around a needle, q grows.
DEVICE float settled_conductivity(float now, float old, float T, float collapse, float width,
                                  float q, float gain, float inverse_capacity) {
  const float g = smaller(gain * q * inverse_capacity, 4.0f);
  const bool boils = T > collapse + DRYING && T < collapse + 4.0f * width && old > 0.0f;
  return now + (boils ? g / (1.0f + g) : 0.0f) * (old - now);
}

// k(T)/k(37 °C) = 1 + a (T − 37), constant above 100 °C.
DEVICE float thermal_ratio(float T, float slope) {
  return 1.0f + slope * (smaller(T, 100.0f) - 37.0f);
}

// Arrhenius rate A exp(−E/(R T)) [1/s] with log_A = ln A and activation = E/R [K].
DEVICE float arrhenius_rate(float T, float log_A, float activation) {
  return exponential(log_A - activation / (T + 273.15f));
}

// CEM43 rate: R^(43 − T), R = 0.5 above 43 °C and 0.25 below (minutes per minute), nothing below
// 39 °C is left out: the sum is exact for any history up to 130 °C. Hotter tissue, boiled dry and dead
// a thousand times over, counts as 130 °C: a float would overflow at 170 °C.
DEVICE float dose_rate(float T) {
  const float ln2 = 0.69314718f;
  return exponential((smaller(T, 130.0f) - 43.0f) * (T >= 43.0f ? ln2 : 2.0f * ln2));
}

// Harmonic mean of two conductivities: the flux through a face is continuous.
DEVICE float harmonic(float a, float b) {
  const float sum = a + b;
  return sum > 0.0f ? 2.0f * a * b / sum : 0.0f;
}
