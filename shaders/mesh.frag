#version 450 core
// A structure's surface: lit (SOLID), or its rim alone (x-ray); MARKED: with the pattern of its state.
// Light comes from the wearer's forehead, so a surface turns dark towards its outline: depth is read from it, and on an
// additive display the outline is simply absent.
// In: normal in stage, position in image [m]. Out: premultiplied, display-encoded sRGB.
#include "camera.glsl"
#include "object.glsl"
#include "hole.glsl"
in vec3 v_normal;
layout(location = 0) out vec4 out_colour;

const float NEARER_IS_BRIGHTER = 2.5;  // [1/m] about the field's distance

#ifdef MARKED
in vec3 v_image;
const vec3 HATCH = vec3(0.577, 0.577, 0.577);    // normal of the hatching's planes, in image
const vec3 STRIPE = vec3(0.707, -0.302, 0.640);  // of the stripes', so that both cannot be taken for each other

// Stripes of half the period, their edges one pixel soft.
float pattern() {
    float phase = dot(v_image, object.state.x > 1.5 ? STRIPE : HATCH) / object.state.y;
    float from_edge = abs(fract(phase) - 0.5) - 0.25;
    return clamp(from_edge / max(fwidth(phase), 1e-4) + 0.5, 0.0, 1.0);
}
#endif

void main() {
    // The direction of sight follows from the place on the screen: one input less to interpolate over small triangles.
    vec3 sight = sight_corner.xyz + gl_FragCoord.x * sight_right.xyz + gl_FragCoord.y * sight_up.xyz;
    float facing = max(dot(v_normal, sight) * -inversesqrt(dot(v_normal, v_normal) * dot(sight, sight)), 0.0);
    float square = min(facing * facing, 1.0);
    // The outermost pixel of a surface fades out: no jagged edge, without the cost of multisampling. Across a rounded
    // outline facing^2 grows linearly with the distance from it, so over its change per pixel it is that distance.
    float alpha = min(square / clamp(fwidthFine(square), 1e-4, 0.2), 1.0);
    float nearer = viewport.w > 0.0 ? viewport.w - 1.0 / gl_FragCoord.w : 0.0;
    float light = object.colour.w * clamp(1.0 + NEARER_IS_BRIGHTER * nearer, 0.65, 1.2);
#ifdef SOLID
    float shine = square * square;  // to the power of 40: 32 and 8
    shine *= shine;
    float eighth = shine;
    shine *= shine;
    shine *= shine;
    vec3 linear = object.colour.rgb * object.colour.rgb;
    vec3 colour = sqrt(linear * (0.10 + 0.95 * square) + 0.22 * shine * eighth);
#else
    float rim = pow(1.0 - sqrt(square), object.look.y);
    vec3 colour = mix(object.colour.rgb, vec3(1.0), 0.25 * rim);
    alpha *= mix(object.look.z, object.look.x, rim);
#endif
#ifdef MARKED
    alpha *= pattern();
#endif
    alpha *= outside_holes();
#ifdef SOLID
    if (alpha < 0.004) discard;  // what is not there must not hide what lies behind it
#endif
    out_colour = vec4(min(colour * light, 1.0) * alpha, alpha);
}
