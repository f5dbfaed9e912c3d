// One eye, as twinguide/render/camera.py fills it.
// Spaces: stage (room), reference (tracked body on the patient), clip, screen [px, from below left]. Lengths [m].
layout(std140, row_major, binding = 0) uniform Camera {
    mat4 clip_from_stage;
    mat4 clip_from_reference;
    vec4 sight_corner;  // direction of sight through screen place (x, y): corner + x right + y up, in stage
    vec4 sight_right;
    vec4 sight_up;
    vec4 eye_in_stage;
    vec4 eye_in_reference;
    vec4 viewport;  // width, height [px]; pixel scale; depth of the field before the eye [m], 0 where there is none
    vec4 flags;     // see-through display; pixels per unit of tangent; unused, unused
    vec4 holes[3];  // a tip's place x, y [px]; what is left at distance d [px] from it is d^2 z + w, within 0..1
    vec4 cores[3];  // the same for marks, smaller
};
