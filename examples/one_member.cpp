// A complete durable database in one process, with a command of its own.
#include <cstdlib>
#include <iostream>
#include <string>

#include <flotilla/flotilla.hpp>

using namespace flotilla;

// Runs inside one transaction: both accounts change, or neither.
Result<Bytes> transfer(WriteTxn& txn, const Args& args) {
  if (auto ok = args.expect(3); !ok) return fail(ok.error());
  WriteTable accounts = txn.table("accounts");
  const long cents = std::stol(std::string(args[2]));
  const long from = std::stol(std::string(accounts.get(args[0]).value_or("10000"))) - cents;
  const long to = std::stol(std::string(accounts.get(args[1]).value_or("10000"))) + cents;
  if (from < 0) return fail(Errc::command_failed, std::string(args[0]) + " has not enough");
  accounts.put(args[0], std::to_string(from));
  accounts.put(args[1], std::to_string(to));
  return std::to_string(from);
}

int main(int count, char** words) {
  Options options;
  options.data_dir = count > 1 ? words[1] : "one_member.data";
  Result<DB> db = DB::open(options, Commands().add("transfer", transfer));
  if (!db) {
    std::cerr << db.error().message() << "\n";
    return EXIT_FAILURE;
  }
  // Any thread may call; the future is ready once the transfer is on disk.
  Result<Bytes> left = db->command("transfer", {"alice", "bob", "2500"}).get();
  std::cout << (left ? "alice has " + *left : left.error().message()) << "\n";

  ReadTxn snapshot = db->read().value();  // in this process, no copy, no lock
  for (auto [name, cents] : snapshot.table("accounts").all()) std::cout << name << " " << cents << "\n";
}
