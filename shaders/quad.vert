#version 450 core
// Rectangles in the room: glyphs, plates and bars, four vertices each. In: corner below left and both edges [m] in
// stage. Out: clip space, place in the atlas, place in the rectangle [em, from its middle].
#include "camera.glsl"
struct Quad {
    vec4 origin;  // xyz [m] in stage; w: 0 a glyph, 1 a plate with rounded corners
    vec4 right;   // xyz [m]; w: width [em]
    vec4 up;      // xyz [m]; w: height [em]
    vec4 place;   // glyph: corners in the atlas (below left, above right); plate: radius [em], border [em]
    vec4 colour;  // display-encoded sRGB, opacity
    vec4 style;   // weight [em], strength of the dark border of a glyph, unused, unused
};
layout(std430, binding = 4) readonly buffer Quads { Quad quads[]; };
out vec2 v_atlas;
out vec2 v_em;
flat out vec4 v_size;  // width, height [em], kind, unused
flat out vec4 v_colour;
flat out vec4 v_place;
flat out vec4 v_style;

void main() {
    Quad quad = quads[gl_InstanceID];
    vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
    v_atlas = mix(quad.place.xy, quad.place.zw, corner);
    v_size = vec4(quad.right.w, quad.up.w, quad.origin.w, 0.0);
    v_em = (corner - 0.5) * v_size.xy;
    v_colour = quad.colour;
    v_place = quad.place;
    v_style = quad.style;
    vec3 position = quad.origin.xyz + corner.x * quad.right.xyz + corner.y * quad.up.xyz;
    gl_Position = clip_from_stage * vec4(position, 1.0);
}
