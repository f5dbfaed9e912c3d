#version 450 core
// A glyph from the atlas of distances, or a plate with rounded corners and an edge, all with soft outlines.
// In: quad.vert. Out: premultiplied, display-encoded sRGB.
#include "camera.glsl"
#include "hole.glsl"
in vec2 v_atlas;
in vec2 v_em;
flat in vec3 v_size;
flat in vec4 v_colour;
flat in vec2 v_shape;
flat in vec4 v_style;
uniform sampler2D atlas;    // 0.5 on a glyph's outline, 1 inside
uniform float em_per_unit;  // how many em the atlas's whole range of values spans
layout(location = 0) out vec4 out_colour;
const float BORDER = 0.10;  // [em] of a glyph, dark

void main() {
    float pixel = max(length(vec2(dFdx(v_em.x), dFdy(v_em.x))), 1e-5);  // [em]
    if (v_size.z < 0.5) {
        float inside = (texture(atlas, v_atlas).r - 0.5) * em_per_unit + v_style.x;
        float lit = clamp(inside / pixel + 0.5, 0.0, 1.0);
        float border = clamp((inside + BORDER) / (BORDER + pixel), 0.0, 1.0) * v_style.y;
        out_colour = vec4(v_colour.rgb * lit, max(lit, border)) * v_colour.a;
    } else {
        vec2 q = abs(v_em) - 0.5 * v_size.xy + v_shape.x;
        float outside = length(max(q, 0.0)) + min(max(q.x, q.y), 0.0) - v_shape.x;
        float within = clamp(0.5 - outside / pixel, 0.0, 1.0);
        float edge = v_shape.y > 0.0 ? clamp((outside + max(v_shape.y, pixel)) / pixel + 0.5, 0.0, 1.0) : 0.0;
        vec4 colour = mix(v_colour, v_style, edge);
        out_colour = vec4(colour.rgb, 1.0) * (colour.a * within);
    }
    out_colour *= outside_holes();
}
