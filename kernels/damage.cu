// Death of tissue by three models in one pass, over one time step from T_old to T_new:
//   Arrhenius  dΩ/dt = A exp(−E/(R T))                 (Henriques & Moritz 1947)
//   CEM43      dD/dt = R^(43 − T)                        (Sapareto & Dewey 1984)
//   three states A ⇄ V → D, k_f = k_f0 exp(T/T_k) (1 − A)  (O'Neill et al. 2011, Ann Biomed Eng 39:570)
// The first two by the midpoint rule, the third by Heun's method at the rates of the mean
// temperature; all are of second order.
#include "laws.h"

// u_old and T are counted from `reference`, `boiling` too; `hottest` is in °C. `boils`: whether u and T may
// differ. Row maxima of |T − T_old|, temperatures above the boiling range cut off: nothing is decided there
// (nor by u, which runs far ahead while water boils).
KERNEL advance_damage(GRID_PARAMETERS, const float* u_old, const float* T, float reference,
                      const unsigned char* label, const float* latent, float boiling,
                      float boiling_width, int boils, float dt, float log_A, float activation,
                      float forward, float inverse_scale, float backward, float* omega, float* dose,
                      float* alive, float* dead, float* hottest, double* rows) {
  const float top = boiling + boiling_width;
  const auto advance = [=](Index p, float old) INLINE {
    const float now = T[p], middle = reference + 0.5f * (old + now);
    omega[p] += dt * arrhenius_rate(middle, log_A, activation);
    dose[p] += (1.0f / 60.0f) * dt * dose_rate(middle);

    const float rate = forward * exponential(middle * inverse_scale);
    const float A = alive[p], D = dead[p], V = 1.0f - A - D;
    const float f0 = rate * (1.0f - A);
    const float dA0 = -f0 * A + backward * V, dD0 = f0 * V;
    const float A1 = A + dt * dA0, D1 = D + dt * dD0, V1 = 1.0f - A1 - D1;
    const float f1 = rate * (1.0f - A1);
    const float dA1 = -f1 * A1 + backward * V1, dD1 = f1 * V1;
    alive[p] = smaller(larger(A + 0.5f * dt * (dA0 + dA1), 0.0f), 1.0f);
    dead[p] = smaller(larger(D + 0.5f * dt * (dD0 + dD1), 0.0f), 1.0f);
    hottest[p] = larger(hottest[p], reference + now);
    return fabsf(smaller(now, top) - smaller(old, top));
  };
  for_each_row(GRID, [=](Index row, int index) INLINE {
    float largest = 0.0f;
    if (boils) {
      FOR_EACH_IN_ROW(p, reduction(max : largest))
        largest = larger(largest, advance(p, temperature_from_enthalpy(u_old[p], boiling, boiling_width,
                                                                       latent[label[p]])));
    } else {
      FOR_EACH_IN_ROW(p, reduction(max : largest)) largest = larger(largest, advance(p, u_old[p]));
    }
    store(rows + index, row_max(largest));
  });
}

// Row counts of tissue cells (k > 0) where `damage` has reached `threshold`.
KERNEL count_dead(GRID_PARAMETERS, const float* damage, const float* k, float threshold,
                  double* rows) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    float count = 0.0f;
    FOR_EACH_IN_ROW(p, reduction(+ : count))
      count += (damage[p] >= threshold && k[p] > 0.0f) ? 1.0f : 0.0f;
    store(rows + index, row_sum(count));
  });
}
