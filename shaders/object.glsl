// How one surface looks in this frame, as twinguide/render/meshes.py fills it; one entry for each surface.
struct Object {
    mat4 stage_from_image;  // rigid; the display-time motion is in its translation [m]
    vec4 colour;            // display-encoded sRGB; w: brightness
    vec4 look;              // kind (0 solid, 1 x-ray), rim, power, fill
    vec4 state;             // pattern (0 none, 1 hatched, 2 striped outline), period [m], unused, unused
};
layout(std430, row_major, binding = 1) readonly buffer Objects { Object objects[]; };
uniform int object_index;
