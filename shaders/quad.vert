#version 450 core
// Rectangles in the room: glyphs, plates and bars, four vertices each. In (for each rectangle): corner below left and
// both edges [m] in stage, and how it looks. Out: clip space, place in the atlas, place from its middle [em].
#include "camera.glsl"
in vec4 in_origin;  // xyz [m] in stage; w: 0 a glyph, 1 a plate with rounded corners
in vec4 in_right;   // xyz [m]; w: width [em]
in vec4 in_up;      // xyz [m]; w: height [em]
in vec4 in_place;   // glyph: corners in the atlas (below left, above right); plate: radius [em], width of its edge [em]
in vec4 in_colour;  // display-encoded sRGB, opacity
in vec4 in_style;   // glyph: weight [em], opacity of its dark border; plate: colour of its edge
out vec2 v_atlas;
out vec2 v_em;
flat out vec3 v_size;  // width, height [em], kind
flat out vec4 v_colour;
flat out vec2 v_shape;  // radius and edge of a plate
flat out vec4 v_style;

void main() {
    vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
    v_atlas = mix(in_place.xy, in_place.zw, corner);
    v_size = vec3(in_right.w, in_up.w, in_origin.w);
    v_em = (corner - 0.5) * v_size.xy;
    v_colour = in_colour;
    v_shape = in_place.xy;
    v_style = in_style;
    vec3 position = in_origin.xyz + corner.x * in_right.xyz + corner.y * in_up.xyz;
    gl_Position = clip_from_stage * vec4(position, 1.0);
}
