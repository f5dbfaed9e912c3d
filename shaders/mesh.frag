#version 450 core
// A structure's surface: lit (solid), or its rim alone (x-ray). Light comes from the wearer's forehead, so a surface
// turns dark towards its outline: depth is read from it, and on an additive display the outline is simply absent.
// In: normal and direction to the eye in stage [m], position in image [m]. Out: premultiplied, display-encoded sRGB.
#include "camera.glsl"
#include "hole.glsl"
in vec3 v_normal;
in vec3 v_to_eye;
in vec3 v_image;
flat in vec4 v_colour;  // these three as in object.glsl
flat in vec4 v_look;
flat in vec4 v_state;
layout(location = 0) out vec4 out_colour;

const vec3 HATCH = vec3(0.577, 0.577, 0.577);    // normal of the hatching's planes, in image
const vec3 STRIPE = vec3(0.707, -0.302, 0.640);  // of the stripes', so that both cannot be taken for each other
const float NEARER_IS_BRIGHTER = 2.5;            // [1/m] about the field's distance

// Stripes of half the period, their edges one pixel soft.
float stripes(vec3 across, float period) {
    float phase = dot(v_image, across) / period;
    float edge = max(fwidth(phase), 1e-4);
    float distance_from_edge = abs(fract(phase) - 0.5) - 0.25;
    return clamp(distance_from_edge / edge + 0.5, 0.0, 1.0);
}

void main() {
    float reach = length(v_to_eye);
    vec3 to_eye = v_to_eye / reach;
    float facing = clamp(dot(normalize(v_normal), to_eye), 0.0, 1.0);
    // The outermost pixel of a surface fades out: no jagged edge, without the cost of multisampling. Across a rounded
    // outline facing^2 grows linearly with the distance from it, so over its change per pixel it is that distance.
    float square = facing * facing;
    float edge = clamp(square / clamp(fwidthFine(square), 1e-4, 0.2), 0.0, 1.0);
    float depth_cue = viewport.w > 0.0 ? clamp(1.0 + NEARER_IS_BRIGHTER * (viewport.w - reach), 0.65, 1.2) : 1.0;

    bool outline_only = v_state.x > 1.5;
    float rim = pow(1.0 - facing, outline_only && v_look.x < 0.5 ? 1.4 : v_look.z);
    vec3 colour;
    float alpha;
    if (v_look.x < 0.5 && !outline_only) {
        float shine = pow(facing, 40.0);
        vec3 linear = v_colour.rgb * v_colour.rgb;
        colour = sqrt(linear * (0.10 + 0.95 * facing * facing) + 0.22 * shine);
        alpha = edge;
    } else {
        colour = mix(v_colour.rgb, vec3(1.0), 0.25 * rim);
        alpha = (outline_only ? v_look.y * rim : v_look.w + (v_look.y - v_look.w) * rim) * edge;
    }
    if (v_state.x > 1.5) alpha *= stripes(STRIPE, v_state.y);
    else if (v_state.x > 0.5) alpha *= stripes(HATCH, v_state.y);
    alpha *= outside_holes(false);
    if (alpha < 0.004) discard;
    out_colour = vec4(min(colour * depth_cue * v_colour.w, 1.0) * alpha, alpha);
}
