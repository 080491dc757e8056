// Pennes' bioheat equation in enthalpy form,
//   ρc ∂u/∂t = ∇·(k∇T) + W (T_a − T) + q + q_m,   T = T(u),
// with u the enthalpy temperature of laws.h and W = ω_b ρ_b c_b [W/(m³ K)]; one stage of the
// RKL2 super-time-stepping scheme (Meyer, Balsara & Aslam 2014, J Comput Phys 257:594, eq. 16–18).
//
// Here u, T and all other temperatures are counted from a reference (the initial temperature), so
// that float32 resolves the small rises far from the needles; only laws of T need the °C.
//
// k = 0 marks cells that are no tissue; ghost cells carry a huge k and the temperature of the box's
// faces, so that the link to them has the half-cell conductance 2k.
#include "laws.h"

// Bits of `sides`: which sides of a box of cells lie on the faces of the whole grid.
constexpr int X_LOW = 1, X_HIGH = 2, Y_LOW = 4, Y_HIGH = 8, Z_LOW = 16, Z_HIGH = 32;

DEVICE float one_if(bool condition) { return condition ? 1.0f : 0.0f; }

// 2 k (T − T_border) [W/m] over a row's faces on the border: `faces` along each cell, and those at its ends.
DEVICE float border_flow(Index row, int nz, float faces, int sides, const float* T, const float* k,
                         float border) {
  const Index last = row + nz - 1;
  row_barrier();  // all lanes read the row's ends, whose own lanes write k before and after
  float flow = 0.0f;
  if (faces > 0.0f)
    FOR_EACH_IN_ROW(p, reduction(+ : flow)) flow += faces * k[p] * (T[p] - border);
  const float ends = one_if(sides & Z_LOW) * k[row] * (T[row] - border) +
                     one_if(sides & Z_HIGH) * k[last] * (T[last] - border);
  row_barrier();
  return 2.0f * (row_sum(flow) + ends);
}

// Largest |T(p) − T(p + step)| along a row.
DEVICE float largest_change(Index row, int nz, Index step, const float* T) {
  float largest = 0.0f;
  FOR_EACH_IN_ROW(p, reduction(max : largest)) largest = larger(largest, fabsf(T[p] - T[p + step]));
  return row_max(largest);
}

// Per step: k(T) of every cell, and W as perfusion stops, both of the middle of the coming step, where u
// will have gone `ahead` times its last change, and Ω or the dead fraction will have grown for `half_step`
// seconds at the rate exp(d0 − d1/(T + 273.15) + d2 T), T a quarter step ahead (times (1 − A) (1 − A − D) for
// the dead fraction D). shutdown 0 none, 1 exp(−(Ω − baseline)), with the Ω that unheated tissue would have
// then, 2 a step where the dead fraction reaches `threshold`.
// Row sums of W (T − T_a) with the new W and T of now, row maxima of T, rows' counts of broken values, row
// sums of W (T − T_a) with the W of the step that ended, and of 2 k (T − T_border) over the cells' faces on the
// box's border with the new k and with that of the step that ended. `all_rows`: still rows are computed too.
// The box may be a part of the grid, of which only the `sides` so marked are on the border. At the others, the
// rim, T is compared with T `rim_cells` inside: row maxima of the change along the row, and at its two ends.
KERNEL prepare_step(GRID_PARAMETERS, const float* T, const float* u, const float* u_before,
                    float ahead, float reference, const unsigned char* label, const float* latent,
                    float boiling, float boiling_width, const float* k_37, const float* slope,
                    const float* W_37, int shutdown, const float* damage, const float* alive,
                    float half_step, float d0, float d1, float d2, float baseline, float threshold,
                    float arterial, float border, int all_rows, int sides, int rim_cells, float* k,
                    float* W, double* rows) {
  const int n = nx * ny;
  for_each_row(GRID, [=](Index row, int index) INLINE {
    float hottest = -1.0e30f, coldest = 1.0e30f, hurt = 0.0f, broken = 0.0f, ended = 0.0f;
    FOR_EACH_IN_ROW(p, reduction(+ : broken, ended) reduction(max : hottest, hurt)
                           reduction(min : coldest)) {
      const float t = T[p];
      ended += W[p] * (t - arterial);
      hottest = larger(hottest, t);
      coldest = smaller(coldest, t);
      hurt = larger(hurt, damage[p]);
      broken += t - t == 0.0f ? 0.0f : 1.0f;
    }
    const int i = index / ny, j = index % ny;
    const bool x_low = i == 0, x_high = i == nx - 1, y_low = j == 0, y_high = j == ny - 1;
    const float faces = one_if(x_low && sides & X_LOW) + one_if(x_high && sides & X_HIGH) +
                        one_if(y_low && sides & Y_LOW) + one_if(y_high && sides & Y_HIGH);
    const float lost_ended = border_flow(row, nz, faces, sides, T, k, border);
    float carried = ended;
    if (row_any(all_rows || hottest > STILL_WARMTH || coldest < -STILL_WARMTH ||
                hurt > baseline + STILL_DAMAGE)) {
      carried = 0.0f;
      FOR_EACH_IN_ROW(p, reduction(+ : carried)) {
        const int l = label[p];
        const float t = T[p];
        const float middle = temperature_from_enthalpy(u[p] + ahead * (u[p] - u_before[p]), boiling,
                                                       boiling_width, latent[l]);
        k[p] = k_37[l] * thermal_ratio(middle + reference, slope[l]);
        const float w1 = (float)(shutdown == 1), w2 = (float)(shutdown == 2);
        const float quarter = 0.5f * (t + middle) + reference;
        const float vulnerable = (1.0f - alive[p]) * (1.0f - alive[p] - damage[p]);
        const float rate = exponential(d0 - d1 / (quarter + 273.15f) + d2 * quarter);
        const float D = damage[p] + half_step * rate * (1.0f - w2 + w2 * vulnerable);
        const float stopped = smaller(baseline - D, 0.0f);
        const float perfused = (1.0f - w1 - w2) + w1 * exponential(stopped) +
                               w2 * (D < threshold ? 1.0f : 0.0f);
        const float w = W_37[l] * perfused;
        W[p] = w;
        carried += w * (t - arterial);
      }
    }
    store(rows + index, row_sum(carried));
    store(rows + n + index, row_max(hottest));
    store(rows + 2 * n + index, row_sum(broken));
    store(rows + 3 * n + index, row_sum(ended));
    store(rows + 4 * n + index, border_flow(row, nz, faces, sides, T, k, border));
    store(rows + 5 * n + index, lost_ended);
    const Index in_x = (Index)rim_cells * sx, in_y = (Index)rim_cells * sy, last = row + nz - 1;
    float rim = 0.0f;
    if (x_low && !(sides & X_LOW)) rim = larger(rim, largest_change(row, nz, in_x, T));
    if (x_high && !(sides & X_HIGH)) rim = larger(rim, largest_change(row, nz, -in_x, T));
    if (y_low && !(sides & Y_LOW)) rim = larger(rim, largest_change(row, nz, in_y, T));
    if (y_high && !(sides & Y_HIGH)) rim = larger(rim, largest_change(row, nz, -in_y, T));
    store(rows + 6 * n + index, rim);
    store(rows + 7 * n + index, sides & Z_LOW ? 0.0f : fabsf(T[row] - T[row + rim_cells]));
    store(rows + 8 * n + index, sides & Z_HIGH ? 0.0f : fabsf(T[last] - T[last - rim_cells]));
  });
}

// du/dt [K/s] of one cell: kx, ky, kz [W/(m K)] are the conductivities of its upper faces.
DEVICE float rate(Index p, int sx, int sy, const float* T, const float* kx, const float* ky,
                  const float* kz, float W, float heat, float inverse_capacity, float inverse_h2,
                  float arterial) {
  const float t = T[p];
  const float conducted = kx[p] * (T[p + sx] - t) + kx[p - sx] * (T[p - sx] - t) +
                          ky[p] * (T[p + sy] - t) + ky[p - sy] * (T[p - sy] - t) +
                          kz[p] * (T[p + 1] - t) + kz[p - 1] * (T[p - 1] - t);
  return inverse_capacity * (inverse_h2 * conducted + W * (arterial - t) + heat);
}

// A property of each cell from the table of its label (gathers are dear inside the stages).
KERNEL look_up(GRID_PARAMETERS, const unsigned char* label, const float* table, float* out) {
  for_each_cell(GRID, [=](Index p) INLINE { out[p] = table[label[p]]; });
}

// Heat of the step [W/m³]: `power` scales q, which is given for unit drive.
KERNEL heat_source(GRID_PARAMETERS, const float* q, float power, const unsigned char* label,
                   const float* metabolic, float* source) {
  for_each_cell(GRID, [=](Index p) INLINE { source[p] = power * q[p] + metabolic[label[p]]; });
}

// Coefficients of a stage lie on the device: `scheme` = mu, nu, step, step0.
// Stage 1: L0 = L(u0), u1 = u0 + step · L0.
KERNEL first_stage(GRID_PARAMETERS, const float* u0, const float* AROUND T,
                   const float* AROUND kx, const float* AROUND ky, const float* AROUND kz,
                   const float* W,
                   const float* source, const float* inverse_capacity, float inverse_h2,
                   float arterial, const float* scheme, float* L0, float* u1) {
  const float step = scheme[2];
  for_each_cell(GRID, [=](Index p) INLINE {
    const float change =
        rate(p, sx, sy, T, kx, ky, kz, W[p], source[p], inverse_capacity[p], inverse_h2, arterial);
    L0[p] = change;
    u1[p] = u0[p] + step * change;
  });
}

// Stage j: u_j = mu u_{j−1} + nu u_{j−2} + (1 − mu − nu) u0 + step L(u_{j−1}) + step0 L0; u_j may take
// the place of u_{j−2}. Written as increments to u0: mu + nu may be close to 2 and −1, and float32 would
// lose digits.
KERNEL next_stage(GRID_PARAMETERS, const float* u0, const float* AROUND T,
                  const float* AROUND kx, const float* AROUND ky, const float* AROUND kz,
                  const float* W,
                  const float* source, const float* inverse_capacity, float inverse_h2,
                  float arterial, const float* scheme, const float* L0,
                  const float* u_before, const float* u_two_before, float* u) {
  const float mu = scheme[0], nu = scheme[1], step = scheme[2], step0 = scheme[3];
  for_each_cell(GRID, [=](Index p) INLINE {
    const float change =
        rate(p, sx, sy, T, kx, ky, kz, W[p], source[p], inverse_capacity[p], inverse_h2, arterial);
    const float start = u0[p];
    u[p] = start + mu * (u_before[p] - start) + nu * (u_two_before[p] - start) + step * change +
           step0 * L0[p];
  });
}

// T(u), for steps in which something boils; while nothing does, u serves as T itself.
KERNEL temperature_of(GRID_PARAMETERS, const float* u, const unsigned char* label,
                      const float* latent, float boiling, float boiling_width, float* T) {
  for_each_cell(GRID, [=](Index p) INLINE {
    T[p] = temperature_from_enthalpy(u[p], boiling, boiling_width, latent[label[p]]);
  });
}

// T(u) `ahead` times the last change of u from now.
KERNEL temperature_ahead(GRID_PARAMETERS, const float* u, const float* u_before, float ahead,
                         const unsigned char* label, const float* latent, float boiling,
                         float boiling_width, float* T) {
  for_each_cell(GRID, [=](Index p) INLINE {
    T[p] = temperature_from_enthalpy(u[p] + ahead * (u[p] - u_before[p]), boiling, boiling_width,
                                     latent[label[p]]);
  });
}

// What all walls of cell[e] do to it: with its links wall_start[e] … wall_start[e + 1] − 1 to walls,
// drive = Σ factor · T_wall. (Σ factor, their strength, does not change.)
KERNEL wall_drive(int n, const int* wall_start, const float* wall_factor,
                  const float* wall_temperature, float* drive) {
  for_each_entry(n, [=](int e) INLINE {
    float sum = 0.0f;
    for (int w = wall_start[e]; w < wall_start[e + 1]; ++w) sum += wall_factor[w] * wall_temperature[w];
    drive[e] = sum;
  });
}

// ½ σ (V − φ)² of each link to a wall at potential V [W/m].
KERNEL half_link_heat(int n, const int* cell, const float* potential, const float* sigma, const float* phi,
                      float* half) {
  for_each_entry(n, [=](int e) INLINE {
    const float drop = potential[e] - phi[cell[e]];
    half[e] = 0.5f * sigma[cell[e]] * drop * drop;
  });
}

// The temperature that a link's wall seems to have if half of the heat on it, `power` times that of `half`,
// arises at the wall. No heat flows where k is 0.
KERNEL seeming_wall(int n, const int* cell, const float* coolant, const float* half, float power,
                    const float* k, float* seeming) {
  for_each_entry(n, [=](int e) INLINE {
    const float conducted = k[cell[e]];
    seeming[e] = coolant[e] - power * half[e] / (conducted <= 0.0f ? 1.0f : conducted);
  });
}

// Temperature of links that lead over the rim of a box to cells `beyond` without conduction, by the solution of
// `advance_without_conduction`, twice: for the books and for the cells beside.
KERNEL temperature_beyond(int n, const int* beyond, const unsigned char* label,
                          const float* u, const float* q, const float* decay, const float* gain,
                          const float* offset, float* temperature, float* wall_temperature) {
  for_each_entry(n, [=](int e) INLINE {
    const int p = beyond[e], l = label[p];
    const float now = decay[l] * u[p] + gain[l] * q[p] + offset[l];
    temperature[e] = now;
    wall_temperature[e] = now;
  });
}

// Adds to a stage what flows from walls into the cells beside them. The first stage corrects L0 too.
KERNEL add_walls(int n, const int* cell, const float* strength, const float* drive, const float* T,
                 const float* k, const float* inverse_capacity, float inverse_h2, const float* scheme,
                 int is_first, float* L0, float* u) {
  const float step = scheme[2];
  for_each_entry(n, [=](int e) INLINE {
    const int p = cell[e];
    const float flow = k[p] * (drive[e] - strength[e] * T[p]);
    const float change = inverse_capacity[p] * inverse_h2 * flow;
    if (is_first) L0[p] += change;
    u[p] += step * change;
  });
}

// Books the heat [J/m] that has flown over each wall link since the start of a step, by the stages' own
// rule: E_j = mu E_{j−1} + nu E_{j−2} + step F(T_{j−1}) + step0 F(T_0), F = factor k (T − T_wall).
KERNEL book_walls(int n, const int* cell, const float* factor, const float* temperature,
                  const float* T, const float* k, const float* scheme, int is_first,
                  double* first_flow, double* booked, double* booked_before) {
  const double mu = scheme[0], nu = scheme[1], step = scheme[2], step0 = scheme[3];
  for_each_entry(n, [=](int e) INLINE {
    const int p = cell[e];
    const double flow = (double)(factor[e] * k[p]) * ((double)T[p] - (double)temperature[e]);
    if (is_first) first_flow[e] = flow;
    const double last = is_first ? 0.0 : booked[e], before = is_first ? 0.0 : booked_before[e];
    booked[e] = mu * last + nu * before + step * flow + step0 * first_flow[e];
    booked_before[e] = last;
  });
}

// Cells without conduction, over Δt seconds in which the power p(t) scales q: ρc du/dt = p q + q_m + W (T_a − u)
// with constant W is integrated exactly, u' = decay u + gain q + offset, with three numbers per label that the
// host finds (physics/far_field.py). Row sums of the heat [J/m³] that blood carried away, what came in less
// what stayed, with `energy` = ∫ p dt; row maxima of |u'|. Cells without capacity keep u.
KERNEL advance_without_conduction(GRID_PARAMETERS, const float* u_old, const float* q,
                                  const unsigned char* label, const float* decay, const float* gain,
                                  const float* offset, const float* capacity,
                                  const float* metabolic_energy, float energy, float* u,
                                  double* rows) {
  const int n = nx * ny;
  for_each_row(GRID, [=](Index row, int index) INLINE {
    double carried = 0.0;
    float largest = 0.0f;
    FOR_EACH_IN_ROW(p, reduction(+ : carried) reduction(max : largest)) {
      const int l = label[p];
      const float old = u_old[p];
      const float now = decay[l] * old + gain[l] * q[p] + offset[l];
      const float given = capacity[l] > 0.0f ? energy * q[p] + metabolic_energy[l] : 0.0f;
      carried += (double)given - (double)capacity[l] * (double)(now - old);
      largest = larger(largest, fabsf(now));
      u[p] = now;
    }
    store(rows + index, row_sum(carried));
    store(rows + n + index, row_max(largest));
  });
}

// Row sums of ρc u [J/m³].
KERNEL stored_heat(GRID_PARAMETERS, const float* u, const unsigned char* label,
                   const float* capacity, double* rows) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    double total = 0.0;
    FOR_EACH_IN_ROW(p, reduction(+ : total))
      total += (double)capacity[label[p]] * (double)u[p];
    store(rows + index, row_sum(total));
  });
}

// Row maxima of the fastest heating [K/s] that the drive alone causes.
KERNEL fastest_heating(GRID_PARAMETERS, const float* q, const float* inverse_capacity,
                       double* rows) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    float fastest = 0.0f;
    FOR_EACH_IN_ROW(p, reduction(max : fastest)) fastest = larger(fastest, q[p] * inverse_capacity[p]);
    store(rows + index, row_max(fastest));
  });
}
