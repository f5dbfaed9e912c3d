// How one surface looks in this frame, as twinguide/render/meshes.py fills it.
layout(std140, row_major, binding = 1) uniform Object {
    mat4 stage_from_image;  // rigid; the display-time motion is in its translation [m]
    vec4 colour;            // display-encoded sRGB; brightness
    vec4 look;              // of the x-ray: opacity at the rim, power, opacity where it faces the eye; unused
    vec4 state;             // pattern (1 hatched, 2 striped) and its period [m]; unused, unused
} object;
