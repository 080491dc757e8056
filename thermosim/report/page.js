"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  // What the coloured surface is, and what its marked place is called.
  const words = { subject: "tumour", place: "thinnest margin", side: "Thinnest side", mark: "thinnest", ...(data.words || {}) };

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  }

  function rgb(hex) {
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  }

  // The margin in steps of 0.01 mm; the lowest code marks places in the blood of an open vessel.
  function marginColor(code) {
    if (code === -32768) return rgb(data.wet);
    const mm = code / 100;
    for (const [, upper, color] of data.classes) if (mm < upper) return rgb(color);
    return rgb(data.classes[data.classes.length - 1][2]);
  }

  // ------------------------------------------------------------------ meshes
  const meshes = data.meshes.map((packed) => {
    const q = new Uint16Array(bytes(packed.points).buffer);
    const count = q.length / 3;
    const points = new Float32Array(q.length);
    for (let i = 0; i < q.length; i++) points[i] = packed.lower[i % 3] + packed.scale[i % 3] * q[i];
    const raw = bytes(packed.triangles).buffer;
    const triangles = packed.wide ? new Uint32Array(raw) : new Uint16Array(raw);
    const margin = packed.margin ? new Int16Array(bytes(packed.margin).buffer) : null;
    return { ...packed, count, points, triangles, margin, visible: true };
  });

  function normals(mesh) {
    const p = mesh.points, t = mesh.triangles, out = new Float32Array(p.length);
    for (let i = 0; i < t.length; i += 3) {
      const a = 3 * t[i], b = 3 * t[i + 1], c = 3 * t[i + 2];
      const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
      const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
      const nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx;
      for (const k of [a, b, c]) { out[k] += nx; out[k + 1] += ny; out[k + 2] += nz; }
    }
    return out;
  }

  function box(list) {
    const low = [1e9, 1e9, 1e9], high = [-1e9, -1e9, -1e9];
    for (const mesh of list) for (let i = 0; i < mesh.points.length; i++) {
      low[i % 3] = Math.min(low[i % 3], mesh.points[i]);
      high[i % 3] = Math.max(high[i % 3], mesh.points[i]);
    }
    const center = low.map((v, i) => 0.5 * (v + high[i]));
    const radius = 0.5 * Math.hypot(...high.map((v, i) => v - low[i]));
    return { center, radius: radius || 1 };
  }

  // ------------------------------------------------------------------ the scene that turns
  const VERTEX = `attribute vec3 place; attribute vec3 normal; attribute vec3 tint;
    uniform mat4 view; varying vec3 shine; varying vec3 paint;
    uniform vec3 right, up, back;
    void main() { gl_Position = view * vec4(place, 1.0); paint = tint;
      vec3 n = normalize(normal); shine = vec3(dot(n, right), dot(n, up), dot(n, back)); }`;
  const FRAGMENT = `precision mediump float; varying vec3 shine; varying vec3 paint; uniform float opacity;
    void main() { vec3 n = normalize(shine); float facing = abs(n.z);
      float side = max(dot(n.z < 0.0 ? -n : n, normalize(vec3(0.35, 0.5, 0.8))), 0.0);
      float gleam = opacity < 0.95 ? 0.0 : 0.18 * pow(side, 24.0);
      float rim = opacity < 0.95 ? opacity * (0.55 + 1.3 * pow(1.0 - facing, 2.0)) : 1.0;
      gl_FragColor = vec4(paint * (0.42 + 0.62 * side) + gleam, min(rim, 1.0)); }`;

  function startScene() {
    const canvas = byId("turn");
    const gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true, alpha: false });
    if (!gl) return false;
    const needsWide = meshes.some((m) => m.wide);
    if (needsWide && !gl.getExtension("OES_element_index_uint")) return false;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return false;
    gl.useProgram(program);
    const at = {}, uniform = {};
    for (const name of ["place", "normal", "tint"]) at[name] = gl.getAttribLocation(program, name);
    for (const name of ["view", "right", "up", "back", "opacity"]) uniform[name] = gl.getUniformLocation(program, name);
    for (const name in at) gl.enableVertexAttribArray(at[name]);

    const buffer = (target, content) => {
      const made = gl.createBuffer();
      gl.bindBuffer(target, made);
      gl.bufferData(target, content, gl.STATIC_DRAW);
      return made;
    };
    for (const mesh of meshes) {
      const tint = new Uint8Array(3 * mesh.count), plain = rgb(mesh.color);
      for (let i = 0; i < mesh.count; i++) tint.set(mesh.margin ? marginColor(mesh.margin[i]) : plain, 3 * i);
      mesh.gpu = { place: buffer(gl.ARRAY_BUFFER, mesh.points), normal: buffer(gl.ARRAY_BUFFER, normals(mesh)),
        tint: buffer(gl.ARRAY_BUFFER, tint), index: buffer(gl.ELEMENT_ARRAY_BUFFER, mesh.triangles) };
    }

    const body = meshes.filter((m) => m.kind !== "needle" && m.kind !== "mark");
    const near = meshes.filter((m) => m.kind === "tumor" || m.kind === "zone" || m.kind === "observed");
    const whole = box(body.length ? body : meshes), close = near.length ? box(near) : whole;
    const camera = { turn: -0.4, lift: 0.35, distance: 0, target: [0, 0, 0] };
    const FIELD = 30 * Math.PI / 180;
    const aim = (what) => {
      camera.target = what.center.slice();
      const aspect = Math.min(1, canvas.clientWidth / Math.max(canvas.clientHeight, 1));
      camera.distance = what.radius / Math.sin(FIELD / 2) / aspect * 0.66;
    };

    function draw() {
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      const ct = Math.cos(camera.turn), st = Math.sin(camera.turn), cl = Math.cos(camera.lift), sl = Math.sin(camera.lift);
      // Frame LPS: x to the patient's left, y to the back, z to the head; turn 0 looks from the front.
      const back = [st * cl, -ct * cl, sl], right = [ct, st, 0], up = [-st * sl, ct * sl, cl];
      const eye = camera.target.map((v, i) => v + camera.distance * back[i]);
      const f = 1 / Math.tan(FIELD / 2), aspect = width / Math.max(height, 1);
      const nearPlane = Math.max(camera.distance - 4 * whole.radius, camera.distance * 0.02), farPlane = camera.distance + 6 * whole.radius;
      const a = (farPlane + nearPlane) / (nearPlane - farPlane), b = 2 * farPlane * nearPlane / (nearPlane - farPlane);
      const dot = (v) => -(v[0] * eye[0] + v[1] * eye[1] + v[2] * eye[2]);
      const rows = [[...right, dot(right)].map((v) => v * f / aspect), [...up, dot(up)].map((v) => v * f),
        [...back, dot(back)].map((v, i) => a * v + (i === 3 ? b : 0)), [...back, dot(back)].map((v) => -v)];
      const view = new Float32Array(16);
      for (let r = 0; r < 4; r++) for (let c = 0; c < 4; c++) view[4 * c + r] = rows[r][c];
      gl.viewport(0, 0, width, height);
      gl.clearColor(0.965, 0.97, 0.975, 1);
      gl.depthMask(true);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST);
      gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
      gl.uniformMatrix4fv(uniform.view, false, view);
      gl.uniform3fv(uniform.right, right);
      gl.uniform3fv(uniform.up, up);
      gl.uniform3fv(uniform.back, back);
      const paint = (mesh) => {
        for (const [name, size, kind, norm] of [["place", 3, gl.FLOAT, false], ["normal", 3, gl.FLOAT, false], ["tint", 3, gl.UNSIGNED_BYTE, true]]) {
          gl.bindBuffer(gl.ARRAY_BUFFER, mesh.gpu[name]);
          gl.vertexAttribPointer(at[name], size, kind, norm, 0, 0);
        }
        gl.uniform1f(uniform.opacity, mesh.opacity);
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.gpu.index);
        gl.drawElements(gl.TRIANGLES, mesh.triangles.length, mesh.wide ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT, 0);
      };
      const shown = meshes.filter((m) => m.visible && m.opacity > 0.01);
      gl.disable(gl.BLEND);
      gl.disable(gl.CULL_FACE);
      for (const mesh of shown) if (mesh.opacity >= 0.95) paint(mesh);
      gl.enable(gl.BLEND);
      gl.enable(gl.CULL_FACE);
      gl.depthMask(false);
      const order = { zone: 1, observed: 1, liver: 2 };
      const glass = shown.filter((m) => m.opacity < 0.95).sort((p, q) => (order[p.kind] || 0) - (order[q.kind] || 0));
      for (const mesh of glass) if (mesh.kind === "liver") { gl.cullFace(gl.FRONT); paint(mesh); }
      for (const mesh of glass) {
        if (mesh.kind !== "liver") { gl.cullFace(gl.FRONT); paint(mesh); }
        gl.cullFace(gl.BACK);
        paint(mesh);
      }
      gl.depthMask(true);
      compass(right, up, back, ratio);
      ringThinnest(rows, back, ratio);
    }

    // A ring around each tumour's thinnest place; dashed while that place faces away.
    function ringThinnest(rows, back, ratio) {
      const pen = byId("marks").getContext("2d");
      for (const tumor of data.tumors) {
        if (!tumor.thinnest || !meshes.some((m) => m.kind === "mark" && m.visible)) continue;
        const [x, y, , w] = rows.map((row) => row[0] * tumor.thinnest[0] + row[1] * tumor.thinnest[1] + row[2] * tumor.thinnest[2] + row[3]);
        if (w <= 0) continue;
        const px = (0.5 + 0.5 * x / w) * canvas.clientWidth, py = (0.5 - 0.5 * y / w) * canvas.clientHeight;
        const facing = tumor.thinnest.reduce((sum, v, i) => sum + (v - tumor.center[i]) * back[i], 0) >= 0;
        pen.globalAlpha = facing ? 1 : 0.6;
        for (const [color, wide] of [["#ffffff", 5], ["#101418", 2]]) {
          pen.setLineDash(facing ? [] : [4, 3]);
          pen.strokeStyle = color;
          pen.lineWidth = wide;
          pen.beginPath();
          pen.arc(px, py, 12, 0, 2 * Math.PI);
          pen.stroke();
        }
        pen.setLineDash([]);
        pen.font = "600 14px sans-serif";
        pen.textAlign = "left";
        pen.textBaseline = "middle";
        pen.lineWidth = 4;
        pen.strokeStyle = "#ffffff";
        const text = `${words.mark}: ${tumor.label}${facing ? "" : " (far side)"}`;
        pen.strokeText(text, px + 18, py);
        pen.fillStyle = "#101418";
        pen.fillText(text, px + 18, py);
        pen.globalAlpha = 1;
      }
    }

    function compass(right, up, back, ratio) {
      const marks = byId("marks"), pen = marks.getContext("2d");
      marks.width = canvas.width;
      marks.height = canvas.height;
      pen.scale(ratio, ratio);
      const cx = 56, cy = canvas.clientHeight - 56, arm = 34;
      pen.font = "600 13px sans-serif";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      const ends = [["L", [1, 0, 0]], ["R", [-1, 0, 0]], ["P", [0, 1, 0]], ["A", [0, -1, 0]], ["S", [0, 0, 1]], ["I", [0, 0, -1]]];
      const project = (v, axis) => v[0] * axis[0] + v[1] * axis[1] + v[2] * axis[2];
      ends.sort((p, q) => project(p[1], back) - project(q[1], back));
      for (const [letter, v] of ends) {
        const x = project(v, right), y = -project(v, up), depth = project(v, back);
        pen.globalAlpha = 0.45 + 0.55 * (depth + 1) / 2;
        pen.strokeStyle = pen.fillStyle = "#2b2f36";
        pen.beginPath();
        pen.moveTo(cx, cy);
        pen.lineTo(cx + arm * x, cy + arm * y);
        pen.stroke();
        pen.fillText(letter, cx + (arm + 11) * x, cy + (arm + 11) * y);
      }
    }

    let waiting = false;
    const redraw = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; draw(); });
    };

    const fingers = new Map();
    let spread = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      spread = 0;
    });
    const lift = (event) => { fingers.delete(event.pointerId); spread = 0; };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    canvas.addEventListener("pointermove", (event) => {
      const last = fingers.get(event.pointerId);
      if (!last) return;
      const dx = event.clientX - last[0], dy = event.clientY - last[1];
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (fingers.size === 2) {
        const [p, q] = [...fingers.values()], now = Math.hypot(p[0] - q[0], p[1] - q[1]);
        if (spread) zoom(spread / Math.max(now, 1));
        spread = now;
      } else if (event.shiftKey || event.buttons === 4) {
        const step = camera.distance * 2 * Math.tan(FIELD / 2) / canvas.clientHeight;
        const ct = Math.cos(camera.turn), st = Math.sin(camera.turn), cl = Math.cos(camera.lift), sl = Math.sin(camera.lift);
        [[ct, st, 0], [-st * sl, ct * sl, cl]].forEach((axis, k) => {
          const move = k === 0 ? -dx * step : dy * step;
          for (let i = 0; i < 3; i++) camera.target[i] += move * axis[i];
        });
      } else {
        camera.turn -= 0.008 * dx;
        camera.lift = Math.max(-1.55, Math.min(1.55, camera.lift + 0.008 * dy));
      }
      redraw();
    });
    const zoom = (factor) => {
      camera.distance = Math.max(close.radius * 0.6, Math.min(whole.radius * 12, camera.distance * factor));
      redraw();
    };
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(0.0012 * event.deltaY)); }, { passive: false });
    canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); showStill(); });

    const views = { Front: [0, 0], "Right side": [-Math.PI / 2, 0], "Left side": [Math.PI / 2, 0], Back: [Math.PI, 0],
      "From the head": [0, 1.55], "From the feet": [0, -1.55] };
    const bar = byId("views");
    const button = (name, act) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = name;
      made.addEventListener("click", () => { act(); redraw(); });
      bar.append(made);
    };
    for (const name in views) button(name, () => { [camera.turn, camera.lift] = views[name]; });
    if (meshes.some((m) => m.kind === "liver")) button("Whole liver", () => aim(whole));
    button(words.subject[0].toUpperCase() + words.subject.slice(1), () => aim(close));
    data.tumors.filter((t) => t.thinnest).forEach((tumor, i, all) => button(
      all.length > 1 ? `${words.side} of ${tumor.name}` : words.side, () => {
        const arm = tumor.thinnest.map((v, k) => v - tumor.center[k]), length = Math.hypot(...arm) || 1;
        aim(close);
        camera.target = tumor.center.slice();
        camera.turn = Math.atan2(arm[0], -arm[1]);
        camera.lift = Math.max(-1.5, Math.min(1.5, Math.asin(arm[2] / length)));
        // The margin is often thinnest beside a vessel, which would hide that place.
        for (const range of vesselRanges) { range.value = 0.3; range.dispatchEvent(new Event("input")); }
      }));

    const vesselRanges = [];
    const layers = new Map();
    for (const mesh of meshes) layers.set(mesh.layer, [...(layers.get(mesh.layer) || []), mesh]);
    for (const [name, group] of layers) {
      const label = document.createElement("label"), box_ = document.createElement("input"), swatch = document.createElement("i");
      box_.type = "checkbox";
      box_.checked = true;
      swatch.style.background = group[0].margin
        ? `linear-gradient(135deg, ${data.classes.map((c, i) => `${c[2]} ${100 * i / data.classes.length}% ${100 * (i + 1) / data.classes.length}%`).join(", ")})` : group[0].color;
      box_.addEventListener("change", () => { for (const m of group) m.visible = box_.checked; redraw(); });
      label.append(box_, swatch, name);
      if (["liver", "vessel", "zone", "observed", "risk", "other"].includes(group[0].kind)) {
        const range = document.createElement("input");
        Object.assign(range, { type: "range", min: 0, max: 1, step: 0.02, value: group[0].opacity, title: "Opacity" });
        range.setAttribute("aria-label", `Opacity of ${name}`);
        range.addEventListener("input", () => { for (const m of group) m.opacity = +range.value; redraw(); });
        label.append(range);
        if (group[0].kind === "vessel") vesselRanges.push(range);
      }
      byId("layers").append(label);
    }
    aim(whole);
    new ResizeObserver(redraw).observe(canvas);
    draw();
    return true;
  }

  function showStill() {
    byId("scene3d").hidden = true;
    byId("stillbox").hidden = false;
  }

  // ------------------------------------------------------------------ slices
  const volume = data.volume;
  const temperature = volume.temperature ? bytes(volume.temperature) : null;
  const labels = volume.labels ? bytes(volume.labels) : null;
  const images = (volume.images || []).map((image) => ({ ...image, values: bytes(image.values) }));
  let shownImage = 0;  // one of `images`, or one more for the chequerboard
  const [nx, ny, nz] = volume.shape;
  const stride = [1, nx, nx * ny];
  // Horizontal and vertical axis of each plane and whether the vertical one runs upwards.
  const PLANES = [
    { id: "axial", through: 2, across: 0, down: 1, up: false, edges: ["R", "L", "A", "P"] },
    { id: "coronal", through: 1, across: 0, down: 2, up: true, edges: ["R", "L", "S", "I"] },
    { id: "sagittal", through: 0, across: 1, down: 2, up: true, edges: ["A", "P", "S", "I"] }];
  const position = [nx >> 1, ny >> 1, nz >> 1];
  const mmOf = (axis, index) => volume.origin[axis] + volume.spacing * index;
  const indexOf = (axis, mm) => Math.max(0, Math.min(volume.shape[axis] - 1, Math.round((mm - volume.origin[axis]) / volume.spacing)));

  const HEAT = [[42, 84, 39, 143, 0], [46, 106, 44, 145, 0.55], [50, 160, 50, 130, 0.72], [60, 214, 74, 74, 0.8], [75, 240, 130, 45, 0.86],
    [95, 252, 205, 70, 0.9], [110, 255, 252, 220, 0.94]];
  function heat(t) {
    if (t <= HEAT[0][0]) return [0, 0, 0, 0];
    for (let i = 1; i < HEAT.length; i++) if (t <= HEAT[i][0]) {
      const a = HEAT[i - 1], b = HEAT[i], s = (t - a[0]) / (b[0] - a[0]);
      return [1, 2, 3, 4].map((k) => a[k] + s * (b[k] - a[k]));
    }
    return HEAT[HEAT.length - 1].slice(1);
  }
  const heatTable = Array.from({ length: 256 }, (_, v) => heat(volume.offset + volume.step * v));
  const tissue = Array.from({ length: 256 }, (_, label) => {
    const s = data.structures[label];
    if (!s || s.kind === "outside") return [58, 63, 70];
    if (s.kind === "vessel") return rgb(s.color).map((c) => 0.75 * c + 40);
    if (s.kind === "tumor") return [126, 128, 128];
    if (s.kind === "risk") return rgb(s.color).map((c) => 0.7 * c);
    return [150, 152, 155];
  });
  const isVessel = Array.from({ length: 256 }, (_, label) => (data.structures[label] || {}).kind === "vessel");

  // Where a mesh crosses the plane `axis` = `value` [mm]: pairs of points.
  function crossing(mesh, axis, value) {
    const p = mesh.points, t = mesh.triangles, out = [];
    for (let i = 0; i < t.length; i += 3) {
      const c = [3 * t[i], 3 * t[i + 1], 3 * t[i + 2]], d = c.map((k) => p[k + axis] - value);
      if ((d[0] >= 0) === (d[1] >= 0) && (d[1] >= 0) === (d[2] >= 0)) continue;
      for (let e = 0; e < 3; e++) {
        const f = (e + 1) % 3;
        if ((d[e] >= 0) === (d[f] >= 0)) continue;
        const s = d[e] / (d[e] - d[f]);
        out.push([0, 1, 2].map((k) => p[c[e] + k] + s * (p[c[f] + k] - p[c[e] + k])));
      }
    }
    return out;
  }

  const show = (name) => { const box_ = byId(`show-${name}`); return Boolean(box_ && box_.checked); };
  const TILE = 15;  // mm, edge of the chequerboard's squares

  function drawPlane(plane) {
    const canvas = byId(plane.id), pen = canvas.getContext("2d");
    const ratio = Math.min(window.devicePixelRatio || 1, 2), size = canvas.clientWidth;
    if (!size) return;
    canvas.width = canvas.height = Math.round(size * ratio);
    const { through, across, down, up } = plane;
    const nu = volume.shape[across], nv = volume.shape[down];
    const cell = size / Math.max(nu, nv), left = 0.5 * (size - nu * cell), top = 0.5 * (size - nv * cell);
    plane.frame = { cell, left, top, nu, nv };
    const X = (mm) => left + cell * ((mm - volume.origin[across]) / volume.spacing + 0.5);
    const Y = (mm) => { const v = cell * ((mm - volume.origin[down]) / volume.spacing + 0.5); return up ? top + nv * cell - v : top + v; };
    const base = position[through] * stride[through], su = stride[across], sv = stride[down];
    const fine = Math.max(1, Math.min(4, Math.ceil(size * ratio / Math.max(nu, nv) / 1.5)));
    const width = nu * fine, height = nv * fine, picture = new ImageData(width, height), pixels = picture.data;
    const heated = show("heat"), vesselsShown = show("vessels");
    for (let row = 0; row < height; row++) {
      const v = Math.max(0, Math.min(nv - 1, (up ? height - row - 0.5 : row + 0.5) / fine - 0.5)), v0 = Math.min(Math.floor(v), nv - 2 < 0 ? 0 : nv - 2), fv = v - v0, v1 = Math.min(v0 + 1, nv - 1);
      for (let col = 0; col < width; col++) {
        const u = Math.max(0, Math.min(nu - 1, (col + 0.5) / fine - 0.5)), u0 = Math.min(Math.floor(u), nu - 2 < 0 ? 0 : nu - 2), fu = u - u0, u1 = Math.min(u0 + 1, nu - 1);
        const corner = [base + u0 * su + v0 * sv, base + u1 * su + v0 * sv, base + u0 * su + v1 * sv, base + u1 * su + v1 * sv];
        const weight = [(1 - fu) * (1 - fv), fu * (1 - fv), (1 - fu) * fv, fu * fv];
        let warm = 0, label = 0, most = -1, color = [120, 122, 125];
        const at = 4 * (row * width + col);
        if (temperature) for (let k = 0; k < 4; k++) warm += weight[k] * temperature[corner[k]];
        if (images.length) {
          let which = shownImage;
          if (which === images.length) {
            const odd = (Math.floor(u * volume.spacing / TILE) + Math.floor(v * volume.spacing / TILE)) & 1;
            which = volume.board[odd];
          }
          let grey = 0;
          for (let k = 0; k < 4; k++) grey += weight[k] * images[which].values[corner[k]];
          color = [grey, grey, grey];
        } else if (labels) {
          for (let k = 0; k < 4; k++) {
            let sum = 0;
            for (let m = 0; m < 4; m++) if (labels[corner[m]] === labels[corner[k]]) sum += weight[m];
            if (sum > most) { most = sum; label = labels[corner[k]]; }
          }
          color = tissue[label];
        }
        const vessel = isVessel[label];
        if (vessel && !vesselsShown) color = [150, 152, 155];
        const h = temperature ? heatTable[Math.round(warm)] : [0, 0, 0, 0], cover = heated && !(vessel && vesselsShown) ? h[3] : 0;
        for (let k = 0; k < 3; k++) pixels[at + k] = color[k] * (1 - cover) + (h[k] || 0) * cover;
        pixels[at + 3] = 255;
      }
    }
    const stage = document.createElement("canvas");
    stage.width = width;
    stage.height = height;
    stage.getContext("2d").putImageData(picture, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = "#23272c";
    pen.fillRect(0, 0, size, size);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(stage, left, top, nu * cell, nv * cell);
    pen.save();
    pen.beginPath();
    pen.rect(left, top, nu * cell, nv * cell);
    pen.clip();
    pen.lineCap = "round";

    const line = (pairs, color, thick, dash) => {
      for (const [style, wide] of [["rgba(0,0,0,0.65)", thick + 1.8], [color, thick]]) {
        if (dash && style !== color) continue;
        pen.strokeStyle = style;
        pen.lineWidth = wide;
        pen.setLineDash(dash || []);
        pen.beginPath();
        for (const path of pairs) path.forEach((point, i) => (i ? pen.lineTo(...point) : pen.moveTo(...point)));
        pen.stroke();
      }
      pen.setLineDash([]);
    };
    if (temperature && show("isotherms")) data.isotherms.forEach((level, i) =>
      line(chained(isotherm(level)), "#ffffff", 1.2, i === 0 ? [5, 4] : [1.5, 3.5]));

    // Marching squares on the slice, then drawn in page coordinates.
    function isotherm(level) {
      const wanted = (level - volume.offset) / volume.step, out = [];
      if (wanted <= 0 || wanted >= 255) return out;
      const place = (u, v) => [left + cell * (u + 0.5), up ? top + nv * cell - cell * (v + 0.5) : top + cell * (v + 0.5)];
      for (let v = 0; v + 1 < nv; v++) for (let u = 0; u + 1 < nu; u++) {
        const o = base + u * su + v * sv;
        const q = [temperature[o], temperature[o + su], temperature[o + su + sv], temperature[o + sv]];
        const spot = [[u, v], [u + 1, v], [u + 1, v + 1], [u, v + 1]], hits = [];
        for (let e = 0; e < 4; e++) {
          const f = (e + 1) % 4;
          if ((q[e] >= wanted) === (q[f] >= wanted)) continue;
          const s = (wanted - q[e]) / (q[f] - q[e]);
          hits.push(place(spot[e][0] + s * (spot[f][0] - spot[e][0]), spot[e][1] + s * (spot[f][1] - spot[e][1])));
        }
        for (let k = 0; k + 1 < hits.length; k += 2) out.push([hits[k], hits[k + 1]]);
      }
      return out;
    }

    for (const [kind, color] of data.contours) for (const mesh of meshes) {
      if (mesh.kind !== kind || !show(kind)) continue;
      const points = crossing(mesh, through, mmOf(through, position[through])).map((p) => [X(p[across]), Y(p[down])]);
      const pairs = [];
      for (let i = 0; i + 1 < points.length; i += 2) pairs.push([points[i], points[i + 1]]);
      line(pairs, color, 2);
    }
    if (show("needles")) for (const needle of data.needles) {
      // The part of the needle within 2.5 mm of the plane.
      const parts = [[needle.bare, needle.entry, "#c3c8cf"], [needle.tip, needle.bare, "#ffffff"]];
      for (const wire of needle.wires) for (let k = 1; k < wire.length; k++) parts.push([wire[k - 1], wire[k], "#ffffff"]);
      for (const [from, to, color] of parts) {
        const here = mmOf(through, position[through]), d0 = from[through] - here, d1 = to[through] - here;
        let s0 = 0, s1 = 1;
        if (Math.abs(d1 - d0) < 1e-9) { if (Math.abs(d0) > 2.5) continue; } else {
          const a = (-2.5 - d0) / (d1 - d0), b = (2.5 - d0) / (d1 - d0);
          s0 = Math.max(0, Math.min(a, b));
          s1 = Math.min(1, Math.max(a, b));
          if (s0 >= s1) continue;
        }
        const ends = [s0, s1].map((s) => [0, 1, 2].map((k) => from[k] + s * (to[k] - from[k]))).map((p) => [X(p[across]), Y(p[down])]);
        line([ends], color, 3);
      }
    }
    pen.restore();

    pen.strokeStyle = "rgba(255,255,255,0.28)";
    pen.lineWidth = 1;
    const cx = X(mmOf(across, position[across])), cy = Y(mmOf(down, position[down]));
    pen.beginPath();
    pen.moveTo(cx, top);
    pen.lineTo(cx, top + nv * cell);
    pen.moveTo(left, cy);
    pen.lineTo(left + nu * cell, cy);
    pen.stroke();

    pen.fillStyle = "#fff";
    pen.font = "600 14px sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.shadowColor = "#000";
    pen.shadowBlur = 4;
    const [l, r, t, b] = plane.edges;
    pen.fillText(l, 11, size / 2);
    pen.fillText(r, size - 11, size / 2);
    pen.fillText(t, size / 2, 12);
    pen.fillText(b, size / 2, size - 12);
    const bar = (cell / volume.spacing) * 10;
    pen.fillRect(12, size - 16, bar, 3);
    pen.font = "12px sans-serif";
    pen.textAlign = "left";
    pen.fillText("10 mm", 12, size - 26);
    pen.shadowBlur = 0;
    byId(`${plane.id}-where`).textContent = `${where(through, mmOf(through, position[through]))}`;
    byId(`${plane.id}-slide`).value = position[through];
  }

  // Joins pairs of points into long paths, so that dashes run on.
  function chained(pairs) {
    const key = (p) => `${p[0].toFixed(2)},${p[1].toFixed(2)}`, ends = new Map(), used = new Array(pairs.length).fill(false), out = [];
    pairs.forEach((pair, i) => pair.forEach((p) => { const k = key(p); ends.set(k, [...(ends.get(k) || []), i]); }));
    for (let i = 0; i < pairs.length; i++) {
      if (used[i]) continue;
      used[i] = true;
      const path = [pairs[i][0], pairs[i][1]];
      for (const forward of [true, false]) for (;;) {
        const tip = forward ? path[path.length - 1] : path[0];
        const next = (ends.get(key(tip)) || []).find((j) => !used[j]);
        if (next === undefined) break;
        used[next] = true;
        const other = key(pairs[next][0]) === key(tip) ? pairs[next][1] : pairs[next][0];
        if (forward) path.push(other); else path.unshift(other);
      }
      out.push(path);
    }
    return out;
  }

  function where(axis, mm) {
    const tumor = data.tumors[chosen];
    if (!tumor) return "";
    const away = mm - tumor.center[axis], sides = [["right", "left"], ["front", "back"], ["feet", "head"]][axis];
    return Math.abs(away) < 0.5 * volume.spacing + 1e-6 ? `${words.subject} centre` : `${Math.abs(away).toFixed(0)} mm to the ${sides[away > 0 ? 1 : 0]}`;
  }

  let chosen = 0;
  const drawPlanes = () => PLANES.forEach(drawPlane);
  function goTo(point) {
    for (let d = 0; d < 3; d++) position[d] = indexOf(d, point[d]);
    drawPlanes();
  }

  function startSlices() {
    for (const plane of PLANES) {
      const slide = byId(`${plane.id}-slide`), canvas = byId(plane.id);
      slide.max = volume.shape[plane.through] - 1;
      slide.addEventListener("input", () => { position[plane.through] = +slide.value; drawPlanes(); });
      const pick = (event) => {
        const f = plane.frame, area = canvas.getBoundingClientRect();
        const u = Math.floor((event.clientX - area.left - f.left) / f.cell);
        const v = Math.floor((event.clientY - area.top - f.top) / f.cell);
        if (u < 0 || v < 0 || u >= f.nu || v >= f.nv) return null;
        return [u, plane.up ? f.nv - 1 - v : v];
      };
      canvas.addEventListener("click", (event) => {
        const at = pick(event);
        if (!at) return;
        [position[plane.across], position[plane.down]] = at;
        drawPlanes();
      });
      canvas.addEventListener("pointermove", (event) => {
        const at = pick(event);
        if (!at) return;
        const k = position[plane.through] * stride[plane.through] + at[0] * stride[plane.across] + at[1] * stride[plane.down];
        const said = [];
        const s = labels ? data.structures[labels[k]] : null;
        if (labels) said.push(s ? s.name : "outside");
        if (temperature) said.push(`highest temperature ${(volume.offset + volume.step * temperature[k]).toFixed(0)} °C`);
        for (const image of images) said.push(`${image.name} ${(image.offset + image.step * image.values[k]).toFixed(0)} ${image.unit}`);
        byId("readout").textContent = said.join(": ");
      });
      canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        const last = volume.shape[plane.through] - 1;
        position[plane.through] = Math.max(0, Math.min(last, position[plane.through] + Math.sign(event.deltaY)));
        drawPlanes();
      }, { passive: false });
    }
    for (const name of ["heat", "isotherms", "vessels", "needles", ...data.contours.map((c) => c[0])]) {
      if (byId(`show-${name}`)) byId(`show-${name}`).addEventListener("change", drawPlanes);
    }
    const names = images.map((image) => image.name);
    if (volume.board) names.push("Chequerboard of both");
    if (names.length > 1) names.forEach((name, i) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = name;
      made.addEventListener("click", () => { shownImage = i; drawPlanes(); });
      byId("images").append(made);
    });
    const jump = byId("jump");
    data.tumors.forEach((tumor, i) => {
      for (const [text, point] of [["centre", tumor.center], [words.place, tumor.thinnest]]) {
        if (!point) continue;
        const made = document.createElement("button");
        made.type = "button";
        made.textContent = data.tumors.length > 1 ? `${tumor.name}: ${text}` : `Go to ${text}`;
        made.addEventListener("click", () => { chosen = i; goTo(point); });
        jump.append(made);
      }
    });
    const stops = HEAT.map((h) => `rgba(${h[1]},${h[2]},${h[3]},${h[4]}) ${((h[0] - 42) / 68 * 100).toFixed(0)}%`);
    if (byId("heatbar")) byId("heatbar").style.background = `linear-gradient(90deg, ${stops.join(", ")}), #96989b`;
    new ResizeObserver(drawPlanes).observe(byId("axial"));
    if (data.tumors.length) goTo(data.tumors[0].center); else drawPlanes();
  }

  let turning = false;
  if (byId("scene3d")) {
    byId("scene3d").hidden = false;
    byId("stillbox").hidden = true;
    try { turning = startScene(); } catch (problem) { console.warn(problem); }
    if (!turning) showStill();
  }
  if (byId("slices")) {
    byId("slices").hidden = false;
    startSlices();
  }
  document.documentElement.dataset.ready = turning ? "webgl" : "still";
})();
