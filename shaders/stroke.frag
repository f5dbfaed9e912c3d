#version 450 core
// A stroke with soft edges and a dark border, which separates it from what lies behind (on an additive display the
// border is a gap). In: line.glsl. Out: premultiplied, display-encoded sRGB.
#include "camera.glsl"
#include "hole.glsl"
in STROKE {
    noperspective float across;
    float along;
    flat vec4 colour;
    flat vec4 style;
} v;
uniform float behind;  // 1: only what lies behind a solid surface is drawn now, dotted and dim
layout(location = 0) out vec4 out_colour;

void main() {
    float reach = abs(v.across);
    float line = clamp(v.style.x + 0.5 - reach, 0.0, 1.0);
    float border = clamp(v.style.x + 1.5 - reach, 0.0, 1.0) * 0.6;
    float shade = v.style.w > 0.5 ? 1.0 - 0.45 * pow(reach / (v.style.x + 0.5), 2.0) : 1.0;  // a round shaft
    float dash = 1.0;
    if (v.style.y > 0.5) {
        float edge = max(fwidth(v.along), 1e-4);
        dash = clamp((0.3 - abs(fract(v.along) - 0.5)) / edge + 0.5, 0.0, 1.0);
    }
    float strength = v.colour.a * dash * (behind > 0.5 ? 0.45 : 1.0);
    // On an opaque display no real needle is seen, so the drawn one may reach its tip.
    if (!(v.style.z > 1.5 && flags.x < 0.5)) strength *= outside_cores();
    if (behind > 0.5 && fract((gl_FragCoord.x + gl_FragCoord.y) / 6.0) < 0.5) strength = 0.0;
    float alpha = max(line, behind > 0.5 ? 0.0 : border) * strength;
    if (alpha < 0.004) discard;
    out_colour = vec4(v.colour.rgb * shade * line * strength, alpha);
}
