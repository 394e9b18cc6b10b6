//! Computations that allocate on their way, in C and C++ (`benches/programs/kernels`).

use super::inputs::{COMPILER, compiled, program};
use super::{Cpus, PLAIN, Program};

macro_rules! kernels {
    ($($name:literal: $source:literal $arguments:expr, $cpus:ident, $what:literal;)*) => {
        /// The kernels; those with containers are parts of one source.
        pub const PROGRAMS: &[Program] = &[$(Program {
            name: $name,
            group: "kernel",
            what: $what,
            needs: &[COMPILER],
            cpus: Cpus::$cpus,
            prepare: |places| compiled(places, concat!("kernels/", $source)),
            command: |places| program(places, &$arguments),
            ..PLAIN
        }),*];
    };
}

kernels! {
    "factor": "factor.c" [], One, "factors whole numbers, each intermediate value a tiny block";
    "bodies": "bodies.c" [], One, "n bodies with an octree per step";
    "cubes": "cubes.c" [], One, "minimises logic functions: bit vectors, hash tables, lists";
    "cells": "cells.c" [], One, "immutable trees, lists and terms with reference counts";
    "ordered": "containers.cc" ["ordered"], One, "std::map and std::set with strings and vectors";
    "hashed": "containers.cc" ["hashed"], One, "std::unordered_map with numbers, strings and lists";
    "strings": "containers.cc" ["strings"], One, "std::string: split, joined, sorted";
    "events": "containers.cc" ["events"], One, "a simulation with unique_ptr, shared_ptr and virtual classes";
    "vectors": "containers.cc" ["vectors"], One, "vectors of vectors that grow and are copied";
    "service": "service.cc" [], All, "requests parsed by a pool of threads, answers freed by the client's";
}
