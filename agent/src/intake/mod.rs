//! Where events come in: HTTP for tills and count sheets, a drop folder for files.

pub(crate) mod documents;
mod drop_folder;
mod gate;
mod http;

pub(crate) use drop_folder::DropFolder;
pub(crate) use gate::Intake;
pub(crate) use http::serve;
