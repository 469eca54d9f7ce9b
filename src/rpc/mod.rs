//! What every process uses to call and to serve: generated code, serving on passed sockets,
//! clients over Unix sockets. Knows no service in particular.

pub mod pb;
