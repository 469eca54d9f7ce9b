//! Paging, as every `List` of the services has it.

use tonic::Status;

const MOST: u32 = 1000;
const UNSAID: usize = 100;

/// The number of items of a page: as requested, from 1 to 1000; 100 for 0.
pub fn size(asked: u32) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(UNSAID),
        Ok(size) if asked <= MOST => Ok(size),
        _ => {
            let said = format!("page_size is {asked}; from 1 to {MOST} are allowed, 0: {UNSAID}");
            Err(Status::invalid_argument(said))
        }
    }
}

/// The error for a token that no page gave out.
pub fn wrong_token(token: &str) -> Status {
    let said = "page_token is not the next_page_token of a page";
    Status::invalid_argument(format!("{said}: {token:?}"))
}
