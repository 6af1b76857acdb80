// What `flotilla doctor` prints.
//
// --json prints one object, always with all of these names; null where there is nothing to say. Names are never reused
// with another meaning; new ones may come.
//
//   directory     as it was given
//   sound         no problems
//   live          null, or {process}: a member has the directory open. Then log is null, start is empty, and content is
//                 the newest transaction, without pages and hash
//   locked        data/LOCK was held meanwhile, so no member could start
//   identity      {cluster_id, node_id, incarnation}; cluster_id is null before the member belongs to one
//   segments      [{name, bytes, first_block}], oldest first; first_block: number of the block it begins with, or null
//   log           {first_index, last_index, last_term, term, vote, commit_index, blocks, torn_tail}; torn_tail: null,
//   or
//                 {segment, offset}; vote: null, or a node id; blocks: number of the newest
//   database      "state.N"
//   leftovers     [name]: what interruptions left, removed by a start
//   checkpoint    {index, term, transaction, installed}
//   content       {index, term, transaction, members, tables, pages, hash}: as of the checkpoint.
//                 members: [{node_id, address, voter}]; tables: [{name, kind, pairs}], kind "plain" or
//                 "sorted_duplicates"; pages: {bytes, used, free}; hash: equal on members that hold the same at one
//                 index
//   start         [text]: what a start would do
//   problems      [{part, code, message}]: what a start would refuse; part "directory", "identity", "log", "checkpoint"
//                 or "database", code the number of a flotilla::Errc
//
// Ids and hashes are strings of lower-case hexadecimal digits. In strings, a byte that is not printable ASCII stands as
// \u00XX, each for itself.
#pragma once

#include <string>

#include "node/doctor.hpp"

namespace flotilla::cli {

std::string doctor_text(const node::Examination& examination);
std::string doctor_json(const node::Examination& examination);

}  // namespace flotilla::cli
