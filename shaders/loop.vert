#version 450 core
// Closed strokes, a strip of 2 (SEGMENTS + 1) vertices each: a ring, or the outline of an ellipsoid as this eye sees it.
// In: centre and half axes [m] in reference. Out: clip space.
// The outline is where the sphere u (point = centre + axes u) is touched by rays from the eye e = axes^-1 (eye - centre):
// the circle u . e = 1 on it, of centre e / |e|^2 and radius sqrt(1 - 1 / |e|^2).
#include "camera.glsl"
#include "line.glsl"
struct Loop {
    vec4 centre;  // xyz [m] in reference; w: width [px at 9 px per degree]
    vec4 first;   // half axis [m]; w: dashes in the whole turn, 0 for none
    vec4 second;  // half axis [m]; w: 0 a ring (through first and second), 1 an ellipsoid's outline
    vec4 third;   // half axis [m], of an ellipsoid; w: own mark of a tip
    vec4 colour;  // display-encoded sRGB, opacity
};
layout(std430, binding = 3) readonly buffer Loops { Loop loops[]; };
const float TURN = 6.28318530718;
const float STEP = 0.02;  // [rad] to the next point, which tells the stroke's direction

void main() {
    Loop loop = loops[first_instance + gl_InstanceID];
    vec3 centre = loop.centre.xyz;
    vec3 first = loop.first.xyz;
    vec3 second = loop.second.xyz;
    bool gone = false;
    if (loop.second.w > 0.5) {
        mat3 axes = mat3(loop.first.xyz, loop.second.xyz, loop.third.xyz);
        vec3 eye = inverse(axes) * (eye_in_reference.xyz - centre);
        float square = dot(eye, eye);
        gone = square <= 1.0;  // the eye is inside
        vec3 to_eye = normalize(eye);
        vec3 helper = abs(to_eye.x) < 0.7 ? vec3(1.0, 0.0, 0.0) : vec3(0.0, 1.0, 0.0);
        vec3 across = normalize(cross(to_eye, helper));
        float radius = sqrt(max(0.0, 1.0 - 1.0 / square));
        centre += axes * (eye / square);
        first = axes * (across * radius);
        second = axes * (cross(to_eye, across) * radius);
    }
    float angle = TURN * float(gl_VertexID >> 1) / float(SEGMENTS);
    float side = (gl_VertexID & 1) == 0 ? -1.0 : 1.0;
    vec4 point = clip_from_reference * vec4(centre + cos(angle) * first + sin(angle) * second, 1.0);
    vec4 ahead = clip_from_reference * vec4(centre + cos(angle + STEP) * first + sin(angle + STEP) * second, 1.0);
    float half_width = 0.5 * loop.centre.w * viewport.z;
    v.along = loop.first.w * float(gl_VertexID >> 1) / float(SEGMENTS);
    v.colour = loop.colour;
    v.style = vec4(half_width, loop.first.w > 0.0 ? 1.0 : 0.0, loop.third.w, 0.0);
    gone = gone || point.w < NEAR || ahead.w < NEAR;
    gl_Position = gone ? vec4(2.0, 2.0, 2.0, 1.0) : widened(point, screen(ahead) - screen(point), side, half_width);
}
