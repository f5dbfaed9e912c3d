#version 450 core
// Straight strokes, four vertices each. In: both ends [m] in reference, width [px], dash period [m]. Out: clip space.
#include "camera.glsl"
#include "line.glsl"
struct Line {
    vec4 start;   // xyz [m] in reference; w: width [px at 9 px per degree]
    vec4 end;     // xyz [m]; w: period of the dashes [m], 0 for none
    vec4 colour;  // display-encoded sRGB, opacity
    vec4 style;   // own mark of a tip, round, unused, unused
};
layout(std430, binding = 2) readonly buffer Lines { Line lines[]; };

void main() {
    Line line = lines[first_instance + gl_InstanceID];
    vec4 start = clip_from_reference * vec4(line.start.xyz, 1.0);
    vec4 end = clip_from_reference * vec4(line.end.xyz, 1.0);
    float behind_start = clamp((NEAR - start.w) / (end.w - start.w), 0.0, 1.0);
    float behind_end = clamp((NEAR - end.w) / (start.w - end.w), 0.0, 1.0);
    float from = start.w < NEAR ? behind_start : 0.0;
    float to = end.w < NEAR ? 1.0 - behind_end : 1.0;
    vec4 a = mix(start, end, from);
    vec4 b = mix(start, end, to);
    bool at_end = gl_VertexID > 1;
    float side = (gl_VertexID & 1) == 0 ? -1.0 : 1.0;
    float half_width = 0.5 * line.start.w * viewport.z;
    float size = distance(line.start.xyz, line.end.xyz);
    v.along = line.end.w > 0.0 ? size * (at_end ? to : from) / line.end.w : 0.0;
    v.colour = line.colour;
    v.style = vec4(half_width, line.end.w > 0.0 ? 1.0 : 0.0, line.style.xy);
    bool gone = start.w < NEAR && end.w < NEAR;
    gl_Position = gone ? vec4(2.0, 2.0, 2.0, 1.0) : widened(at_end ? b : a, screen(b) - screen(a), side, half_width);
}
