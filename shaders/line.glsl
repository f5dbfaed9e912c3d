// What line.vert and loop.vert hand on to stroke.frag. Needs camera.glsl.
//   v_across      distance from the middle of the stroke [px], linear on the screen
//   v_along       how far along [dashes]; one dash and one gap make 1
//   v_colour      display-encoded sRGB and opacity
//   v_style       half width [px]; dashed; own mark of a tip (reaches into a see-through hole's rim only); round
out STROKE {
    noperspective float across;
    float along;
    flat vec4 colour;
    flat vec4 style;
} v;
uniform int first_instance;
const float NEAR = 0.05;  // [m] before the eye; as NEAR of camera.py

vec2 screen(vec4 clip) { return (clip.xy / clip.w * 0.5 + 0.5) * viewport.xy; }

// A corner of the stroke: `side` -1 or +1 of a point whose stroke runs along `direction` [px].
vec4 widened(vec4 clip, vec2 direction, float side, float half_width) {
    float size = length(direction);
    vec2 along = size > 1e-6 ? direction / size : vec2(1.0, 0.0);
    vec2 normal = vec2(-along.y, along.x);
    v.across = side * (half_width + 1.5);  // 1.5 px for the soft edge and the dark border
    vec2 place = screen(clip) + normal * v.across;
    return vec4((place / viewport.xy * 2.0 - 1.0) * clip.w, clip.z, clip.w);
}
