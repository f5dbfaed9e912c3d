#version 450 core
// A glyph from the atlas of distances, or a plate with rounded corners, each with soft edges.
// In: quad.vert. Out: premultiplied, display-encoded sRGB.
#include "camera.glsl"
#include "hole.glsl"
in vec2 v_atlas;
in vec2 v_em;
flat in vec4 v_size;
flat in vec4 v_colour;
flat in vec4 v_place;
flat in vec4 v_style;
uniform sampler2D atlas;       // 0.5 on a glyph's outline, 1 inside
uniform float em_per_unit;     // how many em the atlas's whole range of values spans
layout(location = 0) out vec4 out_colour;

void main() {
    float pixel = max(length(vec2(dFdx(v_em.x), dFdy(v_em.x))), 1e-5);  // [em]
    vec3 colour = v_colour.rgb;
    float alpha;
    float lit;
    if (v_size.z < 0.5) {
        float inside = (texture(atlas, v_atlas).r - 0.5) * em_per_unit + v_style.x;
        lit = clamp(inside / pixel + 0.5, 0.0, 1.0) * v_colour.a;
        float border = clamp((inside + 0.10) / (0.10 + pixel), 0.0, 1.0) * v_style.y;
        alpha = max(lit, border * v_colour.a);
    } else {
        vec2 q = abs(v_em) - 0.5 * v_size.xy + v_place.x;
        float outside = length(max(q, 0.0)) + min(max(q.x, q.y), 0.0) - v_place.x;
        alpha = clamp(0.5 - outside / pixel, 0.0, 1.0);
        if (v_place.y > 0.0) alpha *= clamp((outside + max(v_place.y, pixel)) / pixel + 0.5, 0.0, 1.0);  // outline only
        alpha *= v_colour.a;
        lit = alpha;
    }
    float free = outside_holes(false);
    if (alpha * free < 0.004) discard;
    out_colour = vec4(colour * lit, alpha) * free;
}
