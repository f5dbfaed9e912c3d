// What is left of a fragment near the tips [0..1]: nothing may cover a tip. Needs camera.glsl; screen space [px].
float outside(vec4 hole) {
    vec2 away = gl_FragCoord.xy - hole.xy;
    return clamp(dot(away, away) * hole.z + hole.w, 0.0, 1.0);
}

// For surfaces and text.
float outside_holes() { return min(min(outside(holes[0]), outside(holes[1])), outside(holes[2])); }

// For marks, which may come nearer, but not onto the tip itself.
float outside_cores() { return min(min(outside(cores[0]), outside(cores[1])), outside(cores[2])); }
