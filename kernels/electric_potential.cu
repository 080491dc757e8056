// ∇·(σ∇φ) = 0 on a seven-point stencil: conductances of the links, heat on the links.
//
// Conductances are stored per metre of cell edge, g = G / h [S/m]. gx[p] joins cell p and p + sx.
// `leak[p]` is the sum of a cell's links to walls (electrodes at a potential, ground).
// `theta` is the temperature above `reference` [K].
#include "laws.h"

// σ(T) of every cell, settled where it boils; zero in cells that are no conductor.
KERNEL electrical_conductivity(GRID_PARAMETERS, const float* theta, float reference,
                               const unsigned char* label, const float* sigma_37,
                               const float* slope, const float* inverse_capacity, int law,
                               float collapse, float width, float log_factor, const float* q,
                               float gain, float* sigma) {
  for_each_cell(GRID, [=](Index p) INLINE {
    const int l = label[p];
    const float T = theta[p] + reference;
    const float now =
        sigma_37[l] * conductivity_ratio(T, slope[l], law, collapse, width, log_factor);
    sigma[p] = settled_conductivity(now, sigma[p], T, collapse, width, q[p], gain,
                                    inverse_capacity[l]);
  });
}

// g = harmonic mean of σ on the three upper faces of each cell (σ = 0 beyond the box).
KERNEL face_conductance(GRID_PARAMETERS, const float* AROUND sigma, float* gx, float* gy, float* gz) {
  for_each_cell(GRID, [=](Index p) INLINE {
    const float s = sigma[p];
    gx[p] = harmonic(s, sigma[p + sx]);
    gy[p] = harmonic(s, sigma[p + sy]);
    gz[p] = harmonic(s, sigma[p + 1]);
  });
}

// Faces whose link is fitted to a near field: g *= factor.
KERNEL scale_faces(int n, const int* face, const float* factor, float* g) {
  for_each_entry(n, [=](int e) INLINE { g[face[e]] *= factor[e]; });
}

// Links of cells to one wall: leak += factor · σ, where `place` says; see leak_of_row in multigrid.cu.
KERNEL wall_leak(int n, const int* place, const int* cell, const float* factor, const float* sigma,
                 float* leak) {
  for_each_entry(n, [=](int e) INLINE { leak[place[e]] += factor[e] * sigma[cell[e]]; });
}

// residual += factor · σ · V: the inflow from one electrode at `potential`.
KERNEL wall_inflow(int n, const int* cell, const float* factor, const float* sigma, float potential,
                   float* residual) {
  for_each_entry(
      n, [=](int e) INLINE { residual[cell[e]] += factor[e] * sigma[cell[e]] * potential; });
}

// Current over h that one electrode feeds into each of its cells. A cell with no other wall passes
// on to its neighbours what it gets (`alone` = 1): their differences lose fewer digits than the small
// drop V − φ across a short link, factor · σ · (V − φ), which serves for the others.
KERNEL wall_current(int n, int sx, int sy, const int* cell, const float* factor,
                    const float* alone, const float* sigma, const float* phi, const float* gx,
                    const float* gy, const float* gz, float potential, double* current) {
  for_each_entry(n, [=](int e) INLINE {
    const int p = cell[e];
    const double f = phi[p];
    const double passed = gx[p] * (f - phi[p + sx]) + gx[p - sx] * (f - phi[p - sx]) +
                          gy[p] * (f - phi[p + sy]) + gy[p - sy] * (f - phi[p - sy]) +
                          gz[p] * (f - phi[p + 1]) + gz[p - 1] * (f - phi[p - 1]);
    const double fed = (double)(factor[e] * sigma[p]) * ((double)potential - f);
    current[e] = alone[e] > 0.0f ? passed : fed;
  });
}

// What `wall_current` takes for fed but the solve left in the cell, where the electrode is its only wall.
KERNEL add_residual(int n, const int* cell, const float* alone, const float* residual, double* current) {
  for_each_entry(n, [=](int e) INLINE { current[e] += alone[e] * residual[cell[e]]; });
}

// Joule heat [W/m³]: half of g (Δφ)² of each link goes to each of its ends.
KERNEL joule_heat(GRID_PARAMETERS, const float* phi, const float* gx, const float* gy,
                  const float* gz, float inverse_h2, float* q) {
  for_each_cell(GRID, [=](Index p) INLINE {
    const float f = phi[p];
    const float a = phi[p + sx] - f, b = f - phi[p - sx];
    const float c = phi[p + sy] - f, d = f - phi[p - sy];
    const float e = phi[p + 1] - f, g = f - phi[p - 1];
    q[p] = 0.5f * inverse_h2 *
           (gx[p] * a * a + gx[p - sx] * b * b + gy[p] * c * c + gy[p - sy] * d * d +
            gz[p] * e * e + gz[p - 1] * g * g);
  });
}

// Heat on the links of one wall at `potential`, all of it to the tissue: q += factor σ (V − φ)² / h².
KERNEL wall_joule_heat(int n, const int* cell, const float* factor, const float* sigma,
                       const float* phi, float potential, float inverse_h2, float* q) {
  for_each_entry(n, [=](int e) INLINE {
    const int p = cell[e];
    const float drop = potential - phi[p];
    q[p] += factor[e] * sigma[p] * drop * drop * inverse_h2;
  });
}

// out = a · x + b · out
KERNEL scale_add(GRID_PARAMETERS, float a, const float* x, float b, float* out) {
  for_each_cell(GRID, [=](Index p) INLINE {
    out[p] = fmaf(a, x[p], b == 0.0f ? 0.0f : b * out[p]);
  });
}

// Row sums of q, q r and q w(r) with r = σ(T) / σ_solved over `expected`: how far a potential solved
// with σ_solved is from the one of the present temperature. w(r) = (r − 1)² min(1/r, 3/(r + 2)). In still rows
// σ is as it was.
KERNEL conductivity_drift(GRID_PARAMETERS, const float* theta, float reference,
                          const unsigned char* label, const float* sigma_37, const float* slope,
                          const float* inverse_capacity, int law, float collapse, float width,
                          float log_factor, const float* q, float gain, const float* sigma_solved,
                          float expected, double* rows) {
  const int n = nx * ny;
  for_each_row(GRID, [=](Index row, int index) INLINE {
    float total = 0.0f, hottest = 0.0f, coldest = 0.0f;
    FOR_EACH_IN_ROW(p, reduction(+ : total) reduction(max : hottest) reduction(min : coldest)) {
      total += q[p];
      hottest = larger(hottest, theta[p]);
      coldest = smaller(coldest, theta[p]);
    }
    const float even = 1.0f / expected;
    float rising = even * total;
    float lost = (even - 1.0f) * (even - 1.0f) * smaller(expected, 3.0f / (even + 2.0f)) * total;
    if (row_any(hottest > STILL_WARMTH || coldest < -STILL_WARMTH)) {
      const auto ratio = [=](Index p, float now) INLINE {
        // a weight instead of a branch: with one, GCC 12 adds q of other cells where whole vectors are solid
        const float old = sigma_solved[p], conducts = (float)(old > 0.0f);
        return 1.0f + conducts * (now / larger(expected * old, 1.0e-30f) - 1.0f);
      };
      const auto weight = [](float r) INLINE {
        return (r - 1.0f) * (r - 1.0f) * smaller(1.0f / r, 3.0f / (r + 2.0f));
      };
      rising = lost = 0.0f;
      if (row_any(law == 2 || hottest + reference > collapse + DRYING)) {
        FOR_EACH_IN_ROW(p, reduction(+ : rising, lost)) {
          const int l = label[p];
          const float T = theta[p] + reference;
          const float law_now =
              sigma_37[l] * conductivity_ratio(T, slope[l], law, collapse, width, log_factor);
          const float r = ratio(p, settled_conductivity(law_now, sigma_solved[p], T, collapse, width, q[p],
                                                        gain, inverse_capacity[l]));
          rising += q[p] * r;
          lost += q[p] * weight(r);
        }
      } else {  // the same without exponentials, which all would be 1
        FOR_EACH_IN_ROW(p, reduction(+ : rising, lost)) {
          const int l = label[p];
          const float r =
              ratio(p, sigma_37[l] * linear_ratio(theta[p] + reference, slope[l], law, collapse));
          rising += q[p] * r;
          lost += q[p] * weight(r);
        }
      }
    }
    store(rows + index, row_sum(total));
    store(rows + n + index, row_sum(rising));
    store(rows + 2 * n + index, row_sum(lost));
  });
}

// Row sums of q, and of q where `is_blood[label]` is 1.
KERNEL total_heat(GRID_PARAMETERS, const float* q, const unsigned char* label,
                  const float* is_blood, double* rows) {
  const int n = nx * ny;
  for_each_row(GRID, [=](Index row, int index) INLINE {
    double total = 0.0, in_blood = 0.0;
    FOR_EACH_IN_ROW(p, reduction(+ : total, in_blood)) {
      total += q[p];
      in_blood += q[p] * is_blood[label[p]];
    }
    store(rows + index, row_sum(total));
    store(rows + n + index, row_sum(in_blood));
  });
}
